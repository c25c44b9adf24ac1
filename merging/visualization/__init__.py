"""Figures: a record in, a Plotly figure out, and the same figure in words.

Needs numpy and plotly, neither torch nor streamlit.
"""

from merging.visualization.curve_values import NamedCurve
from merging.visualization.curves import plot_curves
from merging.visualization.cycles import (
    expected_cycles,
    plot_cycles,
    plot_margins,
)
from merging.visualization.describe import (
    describe_curves,
    describe_cycles,
    describe_layers,
    describe_margins,
    describe_objectives,
    describe_permutation,
    describe_similarity,
    describe_surfaces,
)
from merging.visualization.layers import plot_layers
from merging.visualization.objective import plot_objectives
from merging.visualization.permutation import (
    plot_permutation,
    plot_similarity,
)
from merging.visualization.simplex import describe_simplex, plot_simplex, shares_words
from merging.visualization.surface import (
    NamedSurface,
    plot_surfaces,
)
from merging.visualization.surface_3d import plot_surface_3d
from merging.visualization.theme import (
    METHOD_STYLES,
    MethodStyle,
    method_style,
)

__all__ = [
    "METHOD_STYLES",
    "MethodStyle",
    "NamedCurve",
    "NamedSurface",
    "describe_curves",
    "describe_cycles",
    "describe_layers",
    "describe_margins",
    "describe_objectives",
    "describe_permutation",
    "describe_similarity",
    "describe_simplex",
    "describe_surfaces",
    "expected_cycles",
    "method_style",
    "plot_curves",
    "plot_cycles",
    "plot_layers",
    "plot_margins",
    "plot_objectives",
    "plot_permutation",
    "plot_similarity",
    "plot_simplex",
    "plot_surface_3d",
    "plot_surfaces",
    "shares_words",
]
