"""*What comes of merging*: one file per rule, and the table `RULES`."""

from merging.fusion.curvature import diagonal_fisher
from merging.fusion.gradient_matching import implied_weights, remove_task
from merging.fusion.registry import RULES, fuse

__all__ = ["RULES", "diagonal_fisher", "fuse", "implied_weights", "remove_task"]
