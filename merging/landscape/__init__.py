"""How good a model is along lines and planes of weight space, and its statistics there."""

from merging.landscape.evaluate.evaluation import Evaluation, evaluate, evaluate_family
from merging.landscape.layers import layer_barriers, layer_distances, variance_ratios
from merging.landscape.line import curve_of, interpolate, line_positions
from merging.landscape.paths.connect import connect
from merging.landscape.paths.path import Path, evaluate_path, off_line, path_of
from merging.landscape.plane import (
    LEVELS,
    Plane,
    evaluate_plane,
    evaluate_points,
    filter_normalized_plane,
    grid_axes,
    new_points,
    plane_through,
    strip_axes,
)
from merging.landscape.simplex import (
    SIMPLEX_LEVELS,
    check_corners,
    evaluate_simplex,
    new_simplex_points,
    simplex_points,
)
from merging.landscape.statistics.repair import (
    has_batch_norm,
    line_policy,
    plane_policy,
    repair,
    reset,
)
from merging.landscape.swag import Swag, collect_swag, swag_moments

__all__ = [
    "LEVELS",
    "SIMPLEX_LEVELS",
    "Evaluation",
    "Path",
    "Plane",
    "Swag",
    "check_corners",
    "collect_swag",
    "connect",
    "curve_of",
    "evaluate",
    "evaluate_family",
    "evaluate_path",
    "evaluate_plane",
    "evaluate_points",
    "evaluate_simplex",
    "filter_normalized_plane",
    "grid_axes",
    "has_batch_norm",
    "interpolate",
    "layer_barriers",
    "layer_distances",
    "line_policy",
    "line_positions",
    "new_points",
    "new_simplex_points",
    "off_line",
    "path_of",
    "plane_policy",
    "plane_through",
    "repair",
    "reset",
    "simplex_points",
    "strip_axes",
    "swag_moments",
    "variance_ratios",
]
