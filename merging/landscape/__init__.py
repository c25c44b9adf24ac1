"""How good a model is along lines and planes of weight space, and its statistics there."""

from merging.landscape.evaluation import Evaluation, evaluate, evaluate_family
from merging.landscape.interpolation import curve_of, interpolate, line_positions
from merging.landscape.layers import layer_barriers, layer_distances, variance_ratios
from merging.landscape.plane import (
    LEVELS,
    Plane,
    evaluate_plane,
    evaluate_points,
    filter_normalized_plane,
    grid_axes,
    new_points,
    plane_through,
)
from merging.landscape.statistics import (
    has_batch_norm,
    line_policy,
    plane_policy,
    repair,
    reset,
)

__all__ = [
    "LEVELS",
    "Evaluation",
    "Plane",
    "curve_of",
    "evaluate",
    "evaluate_family",
    "evaluate_plane",
    "evaluate_points",
    "filter_normalized_plane",
    "grid_axes",
    "has_batch_norm",
    "interpolate",
    "layer_barriers",
    "layer_distances",
    "line_policy",
    "line_positions",
    "new_points",
    "plane_policy",
    "plane_through",
    "repair",
    "reset",
    "variance_ratios",
]
