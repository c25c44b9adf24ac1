"""Cycles and margins of a permutation, beside what chance would give."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from merging.schema.records.alignment import GroupUnits
from merging.visualization.theme import blank_figure, inks
from merging.visualization.ticks import whole_ticks
from merging.visualization.wording import counted

MOST_BARS = 12
BINS = 40

LONGEST_CYCLES = (
    0.624330, 0.209581, 0.088316, 0.040342, 0.019145, 0.009275,
    0.004547, 0.002245, 0.001114, 0.000554, 0.000276, 0.000138,
)  # fmt: skip
"""Mean share of the units in the longest, second longest, … cycle of a large random permutation
(Shepp and Lloyd 1966)."""


def expected_cycles(n: int) -> float:
    """Return the mean number of cycles of a random permutation: 1 + 1/2 + … + 1/n.

    Example:
        >>> round(expected_cycles(512), 2)
        6.82
    """
    return float((1 / np.arange(1, n + 1)).sum())


def chance_cycles(units: GroupUnits) -> float:
    """Return the mean number of cycles of a random permutation of a group's units.

    A cycle of `k` parents, each with a random order inside, makes cycles of the units inside as
    one random order of them does. Where the parents keep their order, each is by itself.
    """
    above = np.prod([expected_cycles(n) for n in units.parents])
    return float(units.fixed_parents * above * expected_cycles(units.run))


def plot_cycles(units: GroupUnits, *, dark: bool = False, compact: bool = False) -> go.Figure:
    """Draw the lengths of the longest cycles, beside those of a random permutation.

    Args:
        units: The group's units and how they are paired.
        dark: Whether the page is dark.
        compact: Whether the figure must fit a phone.

    Returns:
        The figure; lengths at random are left out for a nested group, which has others.
    """
    n = units.permutation.size
    shown = np.array(units.cycles[:MOST_BARS], np.int32)
    ranks = np.arange(1, MOST_BARS + 1, dtype=np.int16)
    chance = n * np.array(LONGEST_CYCLES, np.float32)
    ink = inks(dark)
    margin = {"l": 62, "r": 12, "t": 108 if compact else 64, "b": 52}
    figure = blank_figure(dark, 320, margin)
    figure.add_bar(
        x=ranks[: shown.size],
        y=shown,
        marker={"color": "#7a6fb0" if not dark else "#9d93d1"},
        name="this permutation",
        hovertemplate="cycle %{x}: %{y} units<extra></extra>",
    )
    likely = (chance >= 1) & (units.run == n)
    figure.add_scatter(
        x=ranks[likely],
        y=chance[likely],
        mode="markers",
        marker={"symbol": "diamond-open", "size": 10, "color": ink.text, "line": {"width": 2}},
        name="mean of random permutations",
        hovertemplate="at random: %{y:.1f} units<extra></extra>",
    )
    figure.add_annotation(
        text=_summary(units, "<br>" if compact else " "), x=0, y=1, xref="paper",
        yref="paper", xanchor="left", yanchor="bottom", yshift=52 if compact else 32, align="left",
    )  # fmt: skip
    figure.update_layout(
        bargap=0.35,
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
        xaxis={"title": {"text": "Cycle, longest first"}, "showgrid": False, "dtick": 1}
        | {"range": [0.4, max(shown.size, int(likely.sum())) + 0.6]},
        yaxis={"title": {"text": "Length (units)"}, "type": "log", "dtick": 1}
        | {"range": [-0.3, float(np.log10(max(n, 2))) + 0.15]},
    )
    return figure


def _summary(units: GroupUnits, gap: str) -> str:
    return (
        f"{counted(len(units.cycles), 'cycle')} (about {chance_cycles(units):.1f} at random),{gap}"
        f"{counted(units.fixed_points, 'fixed point')} ({units.fixed_parents} at random)"
    )


def plot_margins(units: GroupUnits, *, dark: bool = False, compact: bool = False) -> go.Figure:
    """Draw how many units were matched by what margin over the next best unit.

    Args:
        units: The group's units and how they are paired.
        dark: Whether the page is dark.
        compact: Whether the figure must fit a phone.

    Returns:
        The figure; left of zero lie units for which another unit of B is more similar.
    """
    known = units.margin[np.isfinite(units.margin)]
    counts, edges = np.histogram(known, bins=_edges(known, BINS // 2 if compact else BINS))
    ink = inks(dark)
    figure = blank_figure(dark, 300, {"l": 62, "r": 12, "t": 34, "b": 52})
    figure.add_bar(
        x=((edges[:-1] + edges[1:]) / 2).astype(np.float32),
        y=counts.astype(np.int32),
        width=float(edges[1] - edges[0]) * 0.92,
        marker={"color": "#7a6fb0" if not dark else "#9d93d1"},
        hovertemplate="margin about %{x:.3f}: %{y} units<extra></extra>",
        name="units",
    )
    figure.add_vline(x=0, line={"color": ink.text, "width": 1, "dash": "dot"})
    below = int((known < 0).sum())
    figure.add_annotation(
        text=f"{below:,} of {counted(known.size, 'unit')} below 0: another is more similar",
        x=0, y=1, xref="paper", yref="paper", xanchor="left", yanchor="bottom", yshift=6,
        font={"size": 13, "color": ink.muted},
    )  # fmt: skip
    figure.update_layout(
        showlegend=False,
        xaxis={"title": {"text": "Margin (cosine similarity)"}, "nticks": 5 if compact else 9},
        yaxis={"title": {"text": "Units"}} | whole_ticks(max(counts, default=0), 5),
    )
    return figure


def _edges(values: np.ndarray, bins: int) -> np.ndarray:
    """Make even bins, one edge of which is zero where zero lies within."""
    if values.size == 0:
        return np.linspace(0, 1, bins + 1)
    low, high = float(values.min()), float(values.max())
    width = max(high - low, 1e-3) / bins
    first = np.floor(low / width) if low < 0 < high else low / width
    count = int(np.ceil(high / width - first + 1e-9))
    return (first + np.arange(max(count, 1) + 1)) * width
