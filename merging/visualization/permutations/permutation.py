"""The permutation of one group as dots, and its similarities before and after as two images.

A dot at `(i, j)` reads: B's unit `j` plays A's unit `i`.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from merging.schema.errors import UnknownNameError
from merging.schema.records.alignment import GroupUnits
from merging.visualization.theme import (
    CIVIDIS,
    DIVERGING_DARK,
    DIVERGING_LIGHT,
    blank_figure,
    float32,
    inks,
)
from merging.visualization.ticks import whole_ticks

Order = Literal["index", "cycle", "match"]
WHOLE = 127  # int8 units of a cosine similarity of 1
MOST_LINES = 32  # between what the units of a nested group belong to
BAR_AT = 54  # pixels from an axis to the colour bar below it, for ticks and title

_TITLES: dict[str, tuple[str, str]] = {
    "index": ("Unit of model A", "Unit of model B"),
    "cycle": ("Units of model A, cycle by cycle", "Units of model B, in the same order"),
    "match": ("Units of model A, best match first", "Units of model B, by their partner"),
}


def plot_permutation(
    units: GroupUnits, *, order: Order = "index", dark: bool = False, compact: bool = False
) -> go.Figure:
    """Draw a permutation as one dot per unit.

    Args:
        units: The group's units and how they are paired.
        order: How the units are ordered along both axes: `"index"` keeps the models' own order,
            `"cycle"` sets the units of a cycle side by side, longest first, `"match"` sets the
            best pairs first, so that the dots become the diagonal.
        dark: Whether the page is dark.
        compact: Whether the figure must fit a phone.

    Returns:
        The figure; the colour of a dot is its margin over the next best unit.

    Raises:
        UnknownNameError: If `order` is none of its choices.
    """
    if order not in get_args(Order):
        choices = ", ".join(repr(name) for name in get_args(Order))
        raise UnknownNameError(f"unknown order of units {order!r}; choose from {choices}")
    margin = {"l": 62, "r": 12, "t": 10, "b": BAR_AT + 66}
    figure = blank_figure(dark, 440 if compact else 620, margin)
    n = units.permutation.size
    figure.add_scatter(
        x=np.array([0, max(n - 1, 0)], np.int16), y=np.array([0, max(n - 1, 0)], np.int16),
        mode="lines", line={"color": inks(dark).axis, "width": 1}, hoverinfo="skip",
        name="same place",
    )  # fmt: skip
    if order == "index":
        _separate(figure, units, "", dark)
    figure.add_trace(_dots(units, order))
    pad = max(0.02 * n, 0.5)
    axis = {"range": [-pad, n - 1 + pad], "constrain": "domain"}
    axis |= whole_ticks(n, 5 if compact else 8)
    across, up = _TITLES[order]
    figure.update_layout(
        showlegend=False,
        xaxis=axis | {"title": {"text": across}},
        yaxis=axis | {"title": {"text": up}, "scaleanchor": "x", "constraintoward": "top"},
        coloraxis=_margin_colours(units, _bar_place(figure), dark, compact),
    )
    return figure


def _separate(figure: go.Figure, units: GroupUnits, suffix: str, dark: bool) -> None:
    """Draw thin lines between what the units of a nested group belong to."""
    places = np.arange(units.run, units.permutation.size, units.run) - 0.5
    if places.size > MOST_LINES:
        return
    style = {"type": "line", "line": {"width": 1, "color": inks(dark).axis, "dash": "dot"}}
    for at in places.tolist():
        figure.add_shape(
            style, x0=at, x1=at, y0=0, y1=1, xref=f"x{suffix}", yref=f"y{suffix} domain"
        )
        figure.add_shape(
            style, y0=at, y1=at, x0=0, x1=1, yref=f"y{suffix}", xref=f"x{suffix} domain"
        )


def _dots(units: GroupUnits, order: Order) -> go.Scatter:
    n = units.permutation.size
    rows, columns = _orders(units, order)
    place = np.empty(n, np.int64)
    place[columns] = np.arange(n)
    partners = units.permutation[rows]
    return go.Scatter(
        x=np.arange(n, dtype=np.int16),
        y=place[partners].astype(np.int16),
        customdata=np.stack(
            [rows, partners, units.matched[rows], units.margin[rows]], axis=1
        ).astype(np.float32),
        mode="markers",
        marker={
            "size": float(np.clip(1600 / max(n, 1), 2, 8)),
            "color": float32(units.margin[rows]),
            "coloraxis": "coloraxis",
        },
        hovertemplate="A's unit %{customdata[0]}, B's unit %{customdata[1]}<br>"
        "similarity %{customdata[2]:.3f}<br>margin %{customdata[3]:.3f}<extra></extra>",
        name="units",
    )


def _orders(units: GroupUnits, order: Order) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return A's units along x and B's units along y."""
    own = np.arange(units.permutation.size)
    if order == "index":
        return own, own
    if order == "cycle":
        walk = _cycle_walk(units.permutation)
        return walk, walk
    rows = np.argsort(-units.matched, kind="stable")
    return rows, units.permutation[rows]


def _cycle_walk(permutation: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return units cycle by cycle, longest cycle first."""
    left = set(range(permutation.size))
    cycles = []
    for start in range(permutation.size):
        cycle = []
        unit = start
        while unit in left:
            left.remove(unit)
            cycle.append(unit)
            unit = int(permutation[unit])
        cycles.append(cycle)
    ordered = sorted(cycles, key=len, reverse=True)
    return np.array([unit for cycle in ordered for unit in cycle], dtype=np.int64)


def _bar_place(figure: go.Figure) -> dict[str, Any]:
    """Return where a colour bar lies below the axis: `ypad` would count above and below the bar."""
    margin = figure.layout.margin
    inner = figure.layout.height - margin.t - margin.b
    place: dict[str, Any] = {"orientation": "h", "x": 0.5, "ypad": 0, "yanchor": "top"}
    return place | {"y": -BAR_AT / inner}


def _margin_colours(
    units: GroupUnits, place: dict[str, Any], dark: bool, compact: bool
) -> dict[str, Any]:
    """Choose colours by which sure pairs stand out: dark on white, bright on black."""
    known = units.margin[np.isfinite(units.margin)]
    low, high = np.percentile(known, [1, 99]) if known.size else (0.0, 1.0)
    title = {"text": "Margin over the next best unit (cosine similarity)", "side": "bottom"}
    bar = place | {"len": 1 if compact else 0.5, "nticks": 4 if compact else 6, "title": title}
    return {
        "cmin": float(low),
        "cmax": float(high) if high > low else float(low) + 1e-3,
        "colorscale": list(CIVIDIS[4:] if dark else CIVIDIS[:6][::-1]),
        "colorbar": bar,
    }


def plot_similarity(units: GroupUnits, *, dark: bool = False, compact: bool = False) -> go.Figure:
    """Draw the similarity of A's units with B's, in B's own order and in the matched order.

    Args:
        units: The group's units and how they are paired.
        dark: Whether the page is dark.
        compact: Whether the figure must fit a phone: one image below the other.

    Returns:
        The figure; a good match shows as a bright diagonal in the second image.
    """
    margin = {"l": 58, "r": 12, "t": 34, "b": 132 if compact else 112}
    figure = blank_figure(dark, 850 if compact else 560, margin)
    unit = "unit" if units.block == 1 else "units from"
    words = ("Before: B's units in their own order", "After: B's units in the matched order")
    for k, (values, title) in enumerate(zip((units.before, units.after), words, strict=True)):
        suffix = "" if k == 0 else "2"
        figure.add_heatmap(
            z=values.astype(np.int8), dx=units.block, dy=units.block, x0=0, y0=0,
            xaxis=f"x{suffix}", yaxis=f"y{suffix}", coloraxis="coloraxis", name=title,
            hovertemplate=f"{unit} %{{y}} of A, %{{x}} of B<br>similarity %{{z}}/{WHOLE}"
            "<extra></extra>",
        )  # fmt: skip
        figure.update_layout(_similarity_axes(units, k, compact))
        _separate(figure, units, suffix, dark)
        figure.add_annotation(
            text=title, x=0, y=1, xref=f"x{suffix} domain", yref=f"y{suffix} domain",
            xanchor="left", yanchor="bottom", yshift=4, font_size=14 if compact else 15,
        )  # fmt: skip
    place = _bar_place(figure)
    figure.update_layout(coloraxis=_similarity_colours(units, place, dark, compact))
    return figure


def _similarity_axes(units: GroupUnits, k: int, compact: bool) -> dict[str, Any]:
    suffix = "" if k == 0 else "2"
    half = units.block / 2
    shared = {"showgrid": False, "constrain": "domain"}
    shared |= whole_ticks(len(units.permutation), 6)
    ends = [[-half, side * units.block - half] for side in units.before.shape]
    domains = {"x": [0, 1], "y": [0.57, 1] if k == 0 else [0, 0.43]}
    if not compact:
        domains = {"x": [0, 0.45] if k == 0 else [0.55, 1], "y": [0, 1]}
    return {
        f"xaxis{suffix}": shared
        | {"domain": domains["x"], "anchor": f"y{suffix}", "range": ends[1]}
        | {"title": {"text": "Unit of model B" if k == 0 else "Partner of A's unit"}},
        f"yaxis{suffix}": shared
        | {"domain": domains["y"], "anchor": f"x{suffix}", "range": ends[0][::-1]}
        | {"title": {"text": "Unit of model A"}}
        | {"scaleanchor": f"x{suffix}", "constraintoward": "bottom"},
    }


def _similarity_colours(
    units: GroupUnits, place: dict[str, Any], dark: bool, compact: bool
) -> dict[str, Any]:
    note = "" if units.block == 1 else f"; the largest of every {units.block} × {units.block} units"
    if compact:
        note = note.replace("; ", "<br>")
    ticks = np.array([-1, -0.5, 0, 0.5, 1])
    return {
        "cmin": -WHOLE,
        "cmax": WHOLE,
        "colorscale": list(DIVERGING_DARK if dark else DIVERGING_LIGHT),
        "colorbar": place
        | {
            "len": 1 if compact else 0.5,
            "tickvals": ticks * WHOLE,
            "ticktext": [f"{tick:g}".replace("-", "−") for tick in ticks],
            "title": {"text": f"Cosine similarity{note}", "side": "bottom"},
        },
    }
