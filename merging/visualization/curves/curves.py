"""Loss and accuracy along the line from model A to model B, one line per method and split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from merging.schema.records.curve import Baseline, Metric
from merging.schema.records.loss_unit import LossUnit, shared_unit
from merging.visualization.curves import barrier_marks
from merging.visualization.curves.curve_values import CurveValues, DrawnCurve, NamedCurve, draw
from merging.visualization.theme import (
    Dash,
    blank_figure,
    faded,
    float32,
    inks,
)
from merging.visualization.wording import loss_title

ACCURACY_TITLE = "Accuracy (%)"


def plot_curves(
    curves: Sequence[NamedCurve],
    *,
    baseline: Baseline = "endpoints-mean",
    mark: bool = True,
    log_loss: bool = False,
    dark: bool = False,
    compact: bool = False,
) -> go.Figure:
    """Draw curves in two rows that share λ: loss above, accuracy below.

    Curves along trained paths are drawn in a colour of their own, beside the straight ones.

    Where numbers are predicted, which are neither right nor wrong, there is the loss alone.

    A click on the legend isolates a method: its lines, its band of ±2 standard errors and its
    barrier. Paths have no band; theirs are in the words under the pointer. Values that are not
    finite leave gaps.

    Args:
        curves: One per method and split.
        baseline: What barriers are measured above, as in `Curve.barrier`.
        mark: Whether to mark the barrier of the naive and of the best aligned curve.
        log_loss: Whether the loss axis is logarithmic.
        dark: Whether the page is dark.
        compact: Whether the figure must fit a phone.

    Returns:
        The figure.
    """
    dashes, drawn = _dashes(curves), [draw(named) for named in curves]
    figure = blank_figure(dark, *_size(curves, dashes, compact))
    for curve, symbol in zip(drawn, _symbols(curves), strict=True):
        figure.add_traces(list(_traces(curve, symbol, dashes, dark, compact)))
    _lay_out_axes(figure, drawn, log_loss=log_loss, compact=compact)
    if drawn and not any(curve.accuracy.known for curve in drawn):
        _lay_out_loss_alone(figure)
    chosen = barrier_marks.choose(curves, baseline) if mark else []
    if chosen:
        figure.add_traces(
            barrier_marks.traces(chosen, drawn, baseline, figure.layout.yaxis, dark, compact)
        )
    _shade_overshoot(figure, curves, dark)
    return figure


def _traces(
    drawn: DrawnCurve, symbol: str, dashes: dict[str, Dash], dark: bool, compact: bool
) -> Iterator[go.Scatter]:
    named = drawn.named
    colour = named.style.colour(dark)
    several = len(dashes) > 1
    name = f"{named.title}, {named.curve.split}" if several else named.title
    for metric in ("loss", "accuracy"):
        if metric == "accuracy" and not drawn.values(metric).known:
            continue
        shared = {"legendgroup": named.title, "xaxis": "x", "yaxis": _Y[metric]}
        values = drawn.values(metric)
        if not named.on_path:  # as many bands again would hide the lines
            yield _band(values, metric, colour, shared)
        yield go.Scatter(
            x=values.lams,
            y=values.mean,
            customdata=2 * values.error,
            name=name,
            mode="lines+markers",
            connectgaps=False,
            showlegend=metric == "loss",
            line={"color": colour, "width": 2, "dash": dashes[named.curve.split]},
            marker={
                "color": colour,
                "symbol": symbol,
                "size": _marker_size(values.lams.size, compact),
            },
            hovertemplate=_hover(metric, named.curve.loss_unit),
            **shared,
        )


def _band(values: CurveValues, metric: Metric, colour: str, shared: dict[str, str]) -> go.Scatter:
    """Draw plus and minus two standard errors, one polygon for every run of finite values."""
    lams, mean, error = values.lams, values.mean, values.error
    finite = np.isfinite(mean) & np.isfinite(error)
    edges_x, edges_y = [], []
    for run in np.split(np.arange(lams.size), np.flatnonzero(np.diff(finite)) + 1):
        if run.size < 2 or not finite[run[0]]:
            continue
        low, high = mean[run] - 2 * error[run], mean[run] + 2 * error[run]
        if metric == "loss":
            low = np.maximum(low, 0.1 * mean[run])  # a logarithmic axis has no place for 0
        edges_x += [lams[run], lams[run][::-1], np.array([np.nan])]
        edges_y += [high, low[::-1], np.array([np.nan])]
    return go.Scatter(
        x=float32(np.concatenate(edges_x) if edges_x else []),
        y=float32(np.concatenate(edges_y) if edges_y else []),
        mode="lines",
        fill="toself",
        fillcolor=faded(colour, 0.16),
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
        **shared,
    )


_Y = {"loss": "y", "accuracy": "y2"}


def _hover(metric: Metric, unit: LossUnit) -> str:
    if metric == "loss":
        return f"loss %{{y:.3f}} ± %{{customdata:.3f}} {unit}"
    return "accuracy %{y:.1f} % ± %{customdata:.1f}"


def _dashes(curves: Sequence[NamedCurve]) -> dict[str, Dash]:
    """Return a solid line for the training split, or for the only one; dashes for the others."""
    splits = list(dict.fromkeys(named.curve.split for named in curves))
    solid = "train" if "train" in splits else next(iter(splits), "")
    return {split: "solid" if split == solid else "dash" for split in splits}


def _symbols(curves: Sequence[NamedCurve]) -> list[str]:
    """Return the method's marker; hollow on a path, and where a second label shares the method."""
    first: dict[str, str] = {}
    symbols = []
    for named in curves:
        symbol = named.style.symbol
        same = not named.on_path and first.setdefault(named.method, named.title) == named.title
        symbols.append(symbol if same else f"{symbol}-open")
    return symbols


def _marker_size(points: int, compact: bool) -> float:
    return float(np.clip((150 if compact else 240) / max(points, 1), 4, 9))


def _size(
    curves: Sequence[NamedCurve], dashes: dict[str, Dash], compact: bool
) -> tuple[int, dict[str, int]]:
    """Return height and margins that leave the legend its own room."""
    titles = len({named.title for named in curves})
    paths = any(named.on_path for named in curves)  # their names are long
    columns = 1 + (not paths) if compact else 3 if paths else 4
    legend = 12 + 22 * len(dashes) * -(-titles // columns)
    if compact:
        return 460 + legend, {"l": 52, "r": 30, "t": 12, "b": 52 + legend}
    return 520 + legend, {"l": 68, "r": 24, "t": 14 + legend, "b": 56}


def _lay_out_axes(
    figure: go.Figure, curves: Sequence[DrawnCurve], *, log_loss: bool, compact: bool
) -> None:
    lams = np.concatenate([drawn.loss.lams for drawn in curves]) if curves else np.array([0, 1])
    low, high = min(0.0, float(lams.min())), max(1.0, float(lams.max()))
    pad = 0.02 * (high - low)
    middle = ["", "0.5", ""] if compact else ["0.25", "0.5", "0.75"]
    figure.update_layout(
        hovermode="x unified",
        hoversubplots="axis",
        legend={"orientation": "h", "x": 0, "xanchor": "left", "yref": "container"}
        | ({"y": 0.005, "yanchor": "bottom"} if compact else {"y": 0.995, "yanchor": "top"})
        | {"itemclick": "toggleothers", "itemdoubleclick": "toggle", "tracegroupgap": 2},
        xaxis={
            "range": [low - pad, high + pad],
            "tickvals": [0, 0.25, 0.5, 0.75, 1],
            "ticktext": ["Model A", *middle, "Model B"],
            "title": {"text": _along(curves)},
            "anchor": "y2",
            "showspikes": True,
            "spikethickness": 1,
            "spikedash": "dot",
            "spikemode": "across",
            "unifiedhovertitle": {"text": "λ = %{x:.3f}"},
        },
        yaxis={
            "domain": [0.44, 1],
            "title": {"text": loss_title(shared_unit(d.named.curve.loss_unit for d in curves))},
            **_loss_range(curves, log_loss, compact),
        },
        yaxis2={
            "domain": [0, 0.36],
            "title": {"text": ACCURACY_TITLE},
            "anchor": "x",
            "range": _accuracy_range(curves),
            "nticks": 5,
        },
    )


def _along(curves: Sequence[DrawnCurve]) -> str:
    """Say what the horizontal axis is: a share on lines, a position on paths."""
    paths = any(drawn.named.on_path for drawn in curves)
    return "λ, share of model B; on paths, position" if paths else "λ, share of model B"


def _lay_out_loss_alone(figure: go.Figure) -> None:
    figure.update_layout(
        xaxis={"anchor": "y"},
        yaxis={"domain": [0, 1]},
        yaxis2={"visible": False},
    )


def _extent(curves: Sequence[DrawnCurve], metric: Metric) -> NDArray[np.float32]:
    """Return the finite ends of every band, from the lowest to the highest."""
    ends = [np.empty(0, np.float32)]
    for drawn in curves:
        mean, error = drawn.values(metric).mean, drawn.values(metric).error
        ends += [mean, mean + 2 * error, mean - 2 * error]
    flat = np.sort(np.concatenate(ends))
    return flat[np.isfinite(flat)]


def _loss_range(curves: Sequence[DrawnCurve], log_loss: bool, compact: bool) -> dict[str, Any]:
    """Return a range with room for words around the lines, in the axis' own coordinate."""
    losses = _extent(curves, "loss")
    if log_loss:
        means = [drawn.loss.mean[drawn.loss.mean > 0] for drawn in curves]
        least = min((float(mean.min()) for mean in means if mean.size), default=np.inf)
        losses = np.log10(losses[losses > 0.5 * least])  # bands may reach below zero
    if losses.size == 0:
        return {"type": "log" if log_loss else "linear"}
    low, high = float(losses[0]), float(losses[-1])
    spread = max(high - low, 0.05 * abs(high), 1e-3)
    below, above = (0.32, 0.3) if compact else (0.14, 0.16)
    window = [low - below * spread, high + above * spread]
    if log_loss:
        return {"type": "log", "range": window, "dtick": 1 if spread > 1.5 else "D1"}
    return {"type": "linear", "range": window, "nticks": 7}


def _accuracy_range(curves: Sequence[DrawnCurve]) -> list[float] | None:
    shares = _extent(curves, "accuracy")
    if shares.size == 0:
        return None
    spread = max(float(shares[-1] - shares[0]), 2.0)
    return [float(shares[0]) - 0.06 * spread, min(float(shares[-1]) + 0.06 * spread, 102.0)]


def _shade_overshoot(figure: go.Figure, curves: Sequence[NamedCurve], dark: bool) -> None:
    """Tint where λ lies outside the segment from A to B."""
    low, high = figure.layout.xaxis.range
    for edge, beyond in ((0.0, low), (1.0, high)):
        if any(((named.curve.lams - edge) * (beyond - edge) > 0).any() for named in curves):
            figure.add_shape(
                type="rect", x0=edge, x1=beyond, y0=0, y1=1, xref="x", yref="paper",
                fillcolor=inks(dark).shade, line_width=0, layer="below",
            )  # fmt: skip
