"""*What comes of merging*: one file per rule, and the table `RULES`.

Zipping, transport and distillation look at whole models, so they are functions of their own.
"""

from merging.fusion.curvature import diagonal_fisher
from merging.fusion.distill import distill
from merging.fusion.gradient_matching import implied_weights, remove_task
from merging.fusion.registry import RULES, fuse
from merging.fusion.transport import fuse_by_transport
from merging.fusion.zipit import multi_head, zip_models

__all__ = [
    "RULES",
    "diagonal_fisher",
    "distill",
    "fuse",
    "fuse_by_transport",
    "implied_weights",
    "multi_head",
    "remove_task",
    "zip_models",
]
