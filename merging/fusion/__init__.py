"""*What comes of merging*: the rules that work tensor by tensor, in the table `RULES` of `fuse`.

Zipping, transport, distillation and gradient matching with curvature beyond the diagonal look at
whole models, so they are functions of their own.
"""

from merging.fusion.curvature.diagonal_fisher import diagonal_fisher, on_sum_scale
from merging.fusion.curvature.gram_matrices import gram_matrices
from merging.fusion.curvature.operators import (
    diagonal_curvature,
    gauss_newton_curvature,
    kronecker_curvature,
    scaled_curvature,
)
from merging.fusion.full_gradient_matching import Matched, match_gradients
from merging.fusion.fuse import Fused, fuse, fuse_with_notes
from merging.fusion.fuse_files import FusedFiles, fuse_files
from merging.fusion.networks.distill import distill
from merging.fusion.networks.transport import fuse_by_transport
from merging.fusion.networks.zipit import multi_head, zip_models
from merging.fusion.rules.gradient_matching import implied_weights
from merging.fusion.rules.remove_task import remove_task
from merging.fusion.rules.table import RULES

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
