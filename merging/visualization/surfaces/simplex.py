"""Loss of all weighted means of three models, as a triangle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from merging.schema.records.curve import Metric
from merging.schema.records.scores import Mixtures
from merging.schema.records.simplex import SimplexLoss
from merging.visualization.surfaces.colour_scale import ColourScale, coloured, scale_of
from merging.visualization.theme import blank_figure, float32, inks
from merging.visualization.wording import label, sentence_case, value_hover

_HIGH = float(np.sqrt(3) / 2)
_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, _HIGH]])
_PIXELS = 150  # of a raster's side: finer than any grid, coarse enough for a browser
_SIDES = (32, 16, 8, 4, 2, 1)
_ROOM = 62  # pixels for the labels above and below a triangle
_BAR = 70


@dataclass(frozen=True)
class _Face:
    """Three models of a simplex, on the finest grid of which every point is there."""

    simplex: SimplexLoss
    side: int


def plot_simplex(
    simplex: SimplexLoss,
    *,
    metric: Metric = "loss",
    titles: Sequence[str] | None = None,
    dark: bool = False,
    compact: bool = False,
) -> go.Figure:
    """Draw a triangle per three models: every point is a weighted mean, its colour the loss.

    The nearer a point is to a corner, the larger that model's share. Between points of the grid
    colours are interpolated; a grid in the middle of its evaluation shows its finest complete
    level. Of four models or more, every face is drawn.

    Args:
        simplex: The losses.
        metric: What the colours show.
        titles: What the corners are called; their names if None.
        dark: Whether the page is dark.
        compact: Whether the figure must fit a phone.

    Returns:
        The figure. The trace named `grid` of each triangle holds its points.
    """
    called = dict(zip(simplex.names, map(label, titles or simplex.names), strict=True))
    faces = [_face(simplex.face(three)) for three in combinations(simplex.names, 3)]
    scale = scale_of(
        coloured(simplex.loss, simplex.accuracy, metric), metric, unit=simplex.loss_unit
    )
    columns = 1 if compact or len(faces) == 1 else 2
    rows = -(-len(faces) // columns)
    high = 300 if compact else 380 if columns == 2 else 460
    height = rows * (high + _ROOM) + _BAR
    figure = blank_figure(dark, height, {"l": 12, "r": 12, "t": 8, "b": _BAR})
    for k, face in enumerate(faces):
        _add_face(figure, face, scale, k, called, dark)
        _lay_out(figure, k, columns, rows)
    values, words = scale.ticks()
    bar = {
        "orientation": "h",
        "x": 0.5,
        "xanchor": "center",
        "len": 0.9 if compact else 0.5,
        "y": -8 / (height - _BAR - 8),
        "yanchor": "top",
        "ypad": 0,
        "tickvals": values,
        "ticktext": words,
        "tickangle": 0,
        "title": {"text": scale.title, "side": "bottom"},
    }
    colours = {"cmin": scale.low, "cmax": scale.high, "colorscale": scale.colours}
    figure.update_layout(coloraxis=colours | {"colorbar": bar}, showlegend=False)
    return figure


def _face(simplex: SimplexLoss) -> _Face:
    """Return the finest level that is complete, and its points alone."""
    for side in sorted({simplex.resolution, *_SIDES}, reverse=True):
        steps = simplex.weights * side
        rows = (np.abs(steps - np.rint(steps)) < 1e-6).all(axis=1)
        if rows.sum() == comb(side + 2, 2):
            return _Face(simplex, side)
    return _Face(simplex, 0)


def _add_face(
    figure: go.Figure,
    face: _Face,
    scale: ColourScale,
    index: int,
    called: dict[str, str],
    dark: bool,
) -> None:
    suffix = "" if index == 0 else str(index + 1)
    axes = {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}
    x, y, z = _raster(face, scale.metric)
    figure.add_heatmap(
        x=float32(x), y=float32(y), z=float32(z), coloraxis="coloraxis", hoverinfo="skip",
        name="simplex", **axes,
    )  # fmt: skip
    if np.isfinite(z).any():
        figure.add_contour(
            x=float32(x), y=float32(y), z=float32(z), autocontour=False,
            contours={"coloring": "none", **scale.levels()}, showscale=False, hoverinfo="skip",
            line={"width": 1, "color": "rgba(255,255,255,0.55)"}, name="level lines", **axes,
        )  # fmt: skip
    outline = np.vstack([_CORNERS, _CORNERS[:1]])
    figure.add_scatter(
        x=outline[:, 0], y=outline[:, 1], mode="lines", hoverinfo="skip", name="edges",
        line={"color": inks(dark).axis, "width": 3}, **axes,
    )  # fmt: skip
    _add_grid(figure, face, called, axes)
    for k, name in enumerate(face.simplex.names):
        value = _corner_value(face.simplex, name, scale.metric)
        figure.add_annotation(
            text=f"<b>{called[name]}</b><br>{value}", x=_CORNERS[k, 0], y=_CORNERS[k, 1],
            xref=axes["xaxis"], yref=axes["yaxis"], yanchor="bottom" if k == 2 else "top",
            xanchor=("left", "right", "center")[k], yshift=4 if k == 2 else -4,
            align=("left", "right", "center")[k],
        )  # fmt: skip


def _corner_value(simplex: SimplexLoss, name: str, metric: Metric) -> str:
    """Say what the colours show of a model by itself; nothing while it is not there."""
    value = simplex.corner(name, metric)
    if not np.isfinite(value):
        return ""
    return f"{value:.3g}" if metric == "loss" else f"{100 * value:.1f} %"


def _add_grid(figure: go.Figure, face: _Face, called: dict[str, str], axes: dict[str, str]) -> None:
    """Draw the points that were evaluated: faint dots that say their numbers."""
    simplex = face.simplex
    places = simplex.weights @ _CORNERS
    shares = "<br>".join(
        f"{called[name]} %{{customdata[{k}]:.0f}} %" for k, name in enumerate(simplex.names)
    )
    numbers = np.column_stack([100 * simplex.weights, simplex.loss, 100 * simplex.accuracy])
    figure.add_scatter(
        x=float32(places[:, 0]),
        y=float32(places[:, 1]),
        mode="markers",
        marker={"size": 7 if face.side <= 8 else 4, "color": "rgba(255,255,255,0.4)"},
        customdata=float32(numbers),
        hovertemplate=f"{shares}<br>{value_hover(simplex.loss_unit, first=len(simplex.names))}"
        "<extra></extra>",
        name="grid",
        **axes,
    )


def _raster(
    face: _Face, metric: Metric
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Make pixels of the triangle: x, y, and colours interpolated within small triangles."""
    x = np.linspace(0, 1, _PIXELS)
    y = np.linspace(0, _HIGH, round(_PIXELS * _HIGH))
    z = np.full((y.size, x.size), np.nan)
    if face.side == 0:
        return x, y, z
    table = _table(face, metric)
    third = np.repeat((y / _HIGH)[:, None], x.size, axis=1)
    second = x[None] - third / 2
    first = 1 - second - third
    inside = (first > -1e-9) & (second > -1e-9)
    z[inside] = _within(table, first[inside], second[inside], face.side)
    return x, y, z


def _table(face: _Face, metric: Metric) -> NDArray[np.float64]:
    """Return the colour of every grid point by its steps towards the first two corners."""
    simplex, side = face.simplex, face.side
    steps = simplex.weights * side
    rows = (np.abs(steps - np.rint(steps)) < 1e-6).all(axis=1)
    i, j = np.rint(steps[rows, :2]).astype(int).T
    table = np.full((side + 2, side + 2), np.nan)
    table[i, j] = coloured(simplex.loss[rows], simplex.accuracy[rows], metric)
    return table


def _within(
    table: NDArray[np.float64],
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    side: int,
) -> NDArray[np.float64]:
    """Interpolate linearly between the three grid points around every place."""
    a, b = np.clip(first, 0, 1) * side, np.clip(second, 0, 1) * side
    i, j = (np.minimum(np.floor(v + 1e-9).astype(int), side) for v in (a, b))
    u, v = a - i, b - j
    lower = u + v <= 1 + 1e-6
    pairs = (
        (np.where(lower, 1 - u - v, u + v - 1), table[i + ~lower, j + ~lower]),
        (np.where(lower, u, 1 - v), table[i + 1, j]),
        (np.where(lower, v, 1 - u), table[i, j + 1]),
    )
    # A weight of nothing must not bring in a point beyond the edge, which is not there.
    return np.sum([np.where(np.abs(w) < 1e-6, 0.0, w * value) for w, value in pairs], axis=0)


def _lay_out(figure: go.Figure, index: int, columns: int, rows: int) -> None:
    suffix = "" if index == 0 else str(index + 1)
    row, column = divmod(index, columns)
    wide = 1 / columns
    hidden = {"visible": False, "constrain": "domain"}
    figure.update_layout({
        f"xaxis{suffix}": hidden
        | {"domain": [column * wide, (column + 1) * wide], "range": [-0.06, 1.06]}
        | {"anchor": f"y{suffix}"},
        f"yaxis{suffix}": hidden
        | {"domain": [1 - (row + 1) / rows, 1 - row / rows], "range": [-0.16, _HIGH + 0.16]}
        | {"scaleanchor": f"x{suffix}", "anchor": f"x{suffix}"},
    })


def simplex_of_shares(found: Mixtures, names: Sequence[str]) -> SimplexLoss:
    """Turn a grid of shares into a simplex: losses and accuracies are means over the tasks.

    Args:
        found: The grid.
        names: What the models are called, all different.

    Returns:
        The simplex; standard errors of the means are not known.
    """
    return SimplexLoss(
        names=tuple(names),
        weights=found.shares,
        loss=found.loss.mean(1),
        accuracy=found.accuracy.mean(1),
        standard_error=np.full(len(found.shares), np.nan),
        resolution=found.steps,
        split=found.split,
    )


def shares_words(weights: Sequence[float], titles: Sequence[str]) -> str:
    """Write a mixture in words, models without a share left out.

    Example:
        >>> shares_words([0.25, 0, 0.75], ["A", "B", "C"])
        '25 % A + 75 % C'
    """
    return " + ".join(
        f"{100 * share:.0f} % {title}"
        for title, share in zip(titles, weights, strict=True)
        if share > 0
    )


def describe_simplex(simplex: SimplexLoss, titles: Sequence[str] | None = None) -> str:
    """Say the loss of the corners, and where the lowest loss was found.

    Args:
        simplex: The losses.
        titles: What the corners are called; their names if None.

    Returns:
        A few sentences.
    """
    called = titles or simplex.names
    if simplex.best < 0:
        return f"No losses of the {len(called)} models yet, 0 points."
    corners = "; ".join(
        f"{title} {simplex.corner(name):.3g}"
        for title, name in zip(called, simplex.names, strict=True)
    )
    shares = shares_words(simplex.weights[simplex.best].tolist(), called)
    what = sentence_case(f"{simplex.split} loss ({simplex.loss_unit})".strip())
    return (
        f"{what} of {len(simplex.loss):,} weighted means of {len(called)} models. Corners: "
        f"{corners}. Lowest {simplex.loss[simplex.best]:.3g} at {shares}; highest "
        f"{np.nanmax(simplex.loss):.3g}."
    )
