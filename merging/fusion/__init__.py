"""*What comes of merging*: one file per rule, and the table `RULES`."""

from merging.fusion.curvature import diagonal_fisher, on_sum_scale
from merging.fusion.files import FusedFiles, fuse_files
from merging.fusion.gradient_matching import implied_weights
from merging.fusion.grams import gram_matrices
from merging.fusion.registry import RULES, Fused, fuse, fuse_with_notes
from merging.fusion.removal import remove_task

__all__ = [
    "RULES",
    "Fused",
    "FusedFiles",
    "diagonal_fisher",
    "fuse",
    "fuse_files",
    "fuse_with_notes",
    "gram_matrices",
    "implied_weights",
    "on_sum_scale",
    "remove_task",
]
