"""*What comes of merging*: one file per rule, and the table `RULES`.

Zipping, transport, distillation and gradient matching with curvature beyond the diagonal look at
whole models, so they are functions of their own.
"""

from merging.fusion.curvature import diagonal_fisher, on_sum_scale
from merging.fusion.distill import distill
from merging.fusion.files import FusedFiles, fuse_files
from merging.fusion.full_matching import Matched, match_gradients
from merging.fusion.gradient_matching import implied_weights
from merging.fusion.grams import gram_matrices
from merging.fusion.operators import (
    diagonal_curvature,
    gauss_newton_curvature,
    kronecker_curvature,
    scaled_curvature,
)
from merging.fusion.registry import RULES, Fused, fuse, fuse_with_notes
from merging.fusion.removal import remove_task
from merging.fusion.transport import fuse_by_transport
from merging.fusion.zipit import multi_head, zip_models

__all__ = [
    "RULES",
    "Fused",
    "FusedFiles",
    "Matched",
    "diagonal_curvature",
    "diagonal_fisher",
    "distill",
    "fuse",
    "fuse_by_transport",
    "fuse_files",
    "fuse_with_notes",
    "gauss_newton_curvature",
    "gram_matrices",
    "implied_weights",
    "kronecker_curvature",
    "match_gradients",
    "multi_head",
    "on_sum_scale",
    "remove_task",
    "scaled_curvature",
    "zip_models",
]
