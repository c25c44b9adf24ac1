"""Figures: a record in, a Plotly figure out, and the same figure in words.

Needs numpy and plotly, neither torch nor streamlit.
"""

from merging.visualization.curves.curve_values import NamedCurve
from merging.visualization.curves.curves import plot_curves
from merging.visualization.curves.in_words import describe_curves
from merging.visualization.merges.calibration import plot_reliability
from merging.visualization.merges.in_words import (
    describe_contributions,
    describe_errors,
    describe_implied_weights,
    describe_mismatch,
    describe_reliability,
    describe_rule_scores,
    describe_scans,
    describe_task_vectors,
)
from merging.visualization.merges.mismatch import plot_mismatch, rank_correlation
from merging.visualization.merges.rule_scores import (
    NamedScore,
    is_by_loss,
    plot_rule_scores,
    sorted_scores,
)
from merging.visualization.merges.scans import NamedScan, plot_scans
from merging.visualization.merges.task_vectors import (
    plot_contributions,
    plot_errors,
    plot_implied_weights,
    plot_task_vectors,
)
from merging.visualization.permutations.cycles import (
    chance_cycles,
    expected_cycles,
    plot_cycles,
    plot_margins,
)
from merging.visualization.permutations.groups import describe_groups, plot_groups
from merging.visualization.permutations.in_words import (
    describe_cycles,
    describe_layers,
    describe_margins,
    describe_objectives,
    describe_permutation,
    describe_similarity,
)
from merging.visualization.permutations.layers import plot_layers
from merging.visualization.permutations.objective import plot_objectives
from merging.visualization.permutations.permutation import plot_permutation, plot_similarity
from merging.visualization.surfaces.in_words import describe_surfaces
from merging.visualization.surfaces.simplex import (
    describe_simplex,
    plot_simplex,
    shares_words,
    simplex_of_shares,
)
from merging.visualization.surfaces.surface_3d import plot_surface_3d
from merging.visualization.surfaces.surfaces import NamedSurface, plot_surfaces
from merging.visualization.theme import (
    METHOD_STYLES,
    MethodStyle,
    method_style,
)

__all__ = [
    "METHOD_STYLES",
    "MethodStyle",
    "NamedCurve",
    "NamedScan",
    "NamedScore",
    "NamedSurface",
    "chance_cycles",
    "describe_contributions",
    "describe_curves",
    "describe_cycles",
    "describe_errors",
    "describe_groups",
    "describe_implied_weights",
    "describe_layers",
    "describe_margins",
    "describe_mismatch",
    "describe_objectives",
    "describe_permutation",
    "describe_reliability",
    "describe_rule_scores",
    "describe_scans",
    "describe_similarity",
    "describe_simplex",
    "describe_surfaces",
    "describe_task_vectors",
    "expected_cycles",
    "is_by_loss",
    "method_style",
    "plot_contributions",
    "plot_curves",
    "plot_cycles",
    "plot_errors",
    "plot_groups",
    "plot_implied_weights",
    "plot_layers",
    "plot_margins",
    "plot_mismatch",
    "plot_objectives",
    "plot_permutation",
    "plot_reliability",
    "plot_rule_scores",
    "plot_scans",
    "plot_similarity",
    "plot_simplex",
    "plot_surface_3d",
    "plot_surfaces",
    "plot_task_vectors",
    "rank_correlation",
    "shares_words",
    "simplex_of_shares",
    "sorted_scores",
]
