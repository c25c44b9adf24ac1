"""Task vectors: how they point, where they disagree, in which tensors they are, how they weigh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from merging.schema.records.explanations import ImpliedWeights, TaskVectorSummary, TensorErrors
from merging.visualization.theme import (
    CIVIDIS,
    DIVERGING_DARK,
    DIVERGING_LIGHT,
    LEGEND_ABOVE,
    blank_figure,
    float32,
    inks,
    line_style,
)
from merging.visualization.wording import label

_LETTER = 7
_AROUND = 110  # pixels above and below a grid together: its title, and slanted names
_DARK_CELL = 0.55  # share of the scale from which numbers are drawn in the other colour


@dataclass(frozen=True, eq=False)
class _Grid:
    """One of two grids of numbers: its title, what is in its cells, its colours and their range."""

    title: str
    values: NDArray[np.float64]
    colours: list[str]
    low: float
    high: float


def plot_task_vectors(
    found: TaskVectorSummary, models: Sequence[str], *, dark: bool = False, compact: bool = False
) -> go.Figure:
    """Draw the cosines of all pairs of task vectors, and the shares of opposite signs.

    Args:
        found: The comparison.
        models: What screens call the models.
        dark: Whether the page is dark.
        compact: Whether the figure must fit a phone: one grid below the other.

    Returns:
        The figure.
    """
    names = [label(name, 12 if compact else 18) for name in models]
    side = max(160, 34 * len(names))
    left = 16 + _LETTER * max(map(len, names), default=0)
    height = side + _AROUND + (side + _AROUND if compact else 0)
    upper = (side + _AROUND) / (2 * side + _AROUND)  # names and a title are between the grids
    figure = blank_figure(dark, height, {"l": left, "r": 12, "t": 44, "b": _AROUND - 44})
    diverging = list(DIVERGING_DARK if dark else DIVERGING_LIGHT)
    grids = (
        _Grid(title="Cosine", values=found.cosines, colours=diverging, low=-1, high=1),
        _Grid(
            title="Opposite signs (%)",
            values=100 * found.conflicts,
            colours=list(CIVIDIS),
            low=0,
            high=50,
        ),
    )
    for k, grid in enumerate(grids):
        title, low, high = grid.title, grid.low, grid.high
        axis = "" if k == 0 else "2"
        shown = np.array(grid.values, dtype=np.float64)
        np.fill_diagonal(shown, np.nan)  # with itself nothing is compared
        figure.add_trace(
            go.Heatmap(
                z=float32(shown), x=list(range(len(names))), y=list(range(len(names))),
                colorscale=grid.colours, zmin=low, zmax=high, showscale=False, xgap=2, ygap=2,
                hoverongaps=False, xaxis=f"x{axis}", yaxis=f"y{axis}",
                hovertemplate=title + ": %{z:.3g}<extra></extra>",
            )
        )  # fmt: skip
        figure.add_traces(_numbers(shown, low, high, k, dark))
        across = [0.0, 1.0] if compact else [0.0, 0.44] if k == 0 else [0.56, 1.0]
        up = [0.0, 1.0] if not compact else [upper, 1.0] if k == 0 else [0.0, 1.0 - upper]
        ticks = {"tickvals": list(range(len(names))), "showgrid": False, "ticks": ""}
        figure.update_layout({
            f"xaxis{axis}": {
                "domain": across, "anchor": f"y{axis}", **ticks, "ticktext": names,
                "tickangle": -35,
            },
            f"yaxis{axis}": {
                "domain": up, "anchor": f"x{axis}", **ticks,
                "ticktext": names if k == 0 or compact else [""] * len(names),
                "range": [len(names) - 0.5, -0.5],
            },
        })  # fmt: skip
        figure.add_annotation(
            text=title, x=0, y=1, xref=f"x{axis} domain", yref=f"y{axis} domain",
            xanchor="left", yanchor="bottom", yshift=6, font_size=15,
        )  # fmt: skip
    figure.update_layout(showlegend=False)
    return figure


def _numbers(
    values: NDArray[np.float64], low: float, high: float, k: int, dark: bool
) -> list[go.Scatter]:
    axis = "" if k == 0 else "2"
    share = (values - low) / (high - low)
    if k == 0:  # from the middle of a diverging scale both ends are far
        far = np.abs(share - 0.5) > 0.3
        inside, outside = inks(dark).text, "#10131a" if dark else "#ffffff"
    else:
        far, inside, outside = share > _DARK_CELL, "#ffffff", "#10131a"
    traces = []
    for chosen, colour in ((~far, inside), (far, outside)):
        y, x = np.nonzero(chosen & np.isfinite(values))
        traces.append(
            go.Scatter(
                x=x.astype(np.int16), y=y.astype(np.int16), mode="text", hoverinfo="skip",
                text=[f"{v:.2f}" if k == 0 else f"{v:.0f}" for v in values[y, x]],
                textfont={"size": 12, "color": colour}, xaxis=f"x{axis}", yaxis=f"y{axis}",
            )
        )  # fmt: skip
    return traces


def plot_contributions(
    found: TaskVectorSummary, models: Sequence[str], *, dark: bool = False, compact: bool = False
) -> go.Figure:
    """Draw in which tensors the task vectors are: their shares of the squared length.

    Args:
        found: The comparison.
        models: What screens call the models.
        dark: Whether the page is dark.
        compact: Whether the figure must fit a phone.

    Returns:
        The figure: a row per tensor, a marker per model.
    """
    names = [label(name, 16 if compact else 28) for name in found.tensors]
    figure = _dots(names, "Share of the squared length (%)", len(models), dark, compact)
    for k, model in enumerate(models):
        style = line_style(k, dark)
        figure.add_scatter(
            x=float32(100 * found.contributions[k]),
            y=np.arange(len(names), dtype=np.int16),
            mode="markers",
            name=label(model),
            marker={"color": style.colour, "symbol": style.symbol, "size": 9},
            hovertemplate="%{x:.1f} %",
        )
    return figure


def plot_errors(
    rows: Sequence[TensorErrors], *, dark: bool = False, compact: bool = False
) -> go.Figure:
    """Draw how far merges are from the joint model, tensor by tensor (Eq. 10).

    Args:
        rows: Errors of task arithmetic and of gradient matching.
        dark: Whether the page is dark.
        compact: Whether the figure must fit a phone.

    Returns:
        The figure: measured, predicted and bounded lengths of both rules.
    """
    tensors = list(dict.fromkeys(row.tensor for row in rows))
    names = [label(name, 16 if compact else 28) for name in tensors]
    figure = _dots(names, "Distance from the joint model (length)", 6, dark, compact)
    for k, (rule, title) in enumerate((
        ("task_arithmetic", "Task arithmetic"),
        ("gradient_matching", "Gradient matching"),
    )):
        style = line_style(k, dark)
        own = [row for row in rows if row.rule == rule]
        for quantity, symbol in (
            ("measured", "circle"), ("predicted", "x-thin-open"), ("bound", "line-ns-open"),
        ):  # fmt: skip
            figure.add_scatter(
                x=float32([getattr(row, quantity) for row in own]),
                y=np.array([tensors.index(row.tensor) for row in own]) + 0.16 * (2 * k - 1),
                mode="markers",
                name=f"{title}, {quantity}",
                marker={
                    "color": style.colour, "symbol": symbol, "size": 10,
                    "line": {"width": 2, "color": style.colour},
                },
                hovertemplate="%{x:.3g}",
            )  # fmt: skip
    figure.update_xaxes(type="log")
    return figure


def _dots(names: Sequence[str], title: str, lines: int, dark: bool, compact: bool) -> go.Figure:
    legend = 24 * (lines if compact else -(-lines // 3))
    margin = {
        "l": 20 + _LETTER * max(map(len, names), default=0), "r": 16, "t": 20 + legend, "b": 56,
    }  # fmt: skip
    figure = blank_figure(dark, margin["t"] + margin["b"] + max(40 * len(names), 80), margin)
    figure.update_layout(
        xaxis={"title": {"text": title}, "nticks": 6},
        yaxis={
            "tickvals": list(range(len(names))),
            "ticktext": list(names),
            "range": [len(names) - 0.5, -0.5],
        },
        legend=dict(LEGEND_ABOVE),
    )
    return figure


def plot_implied_weights(
    found: ImpliedWeights, models: Sequence[str], *, dark: bool = False, compact: bool = False
) -> go.Figure:
    """Draw how the weights of single entries in gradient matching are distributed.

    Args:
        found: The histograms.
        models: What screens call the models.
        dark: Whether the page is dark.
        compact: Whether the figure must fit a phone.

    Returns:
        The figure: one stepped line per model, shares of its entries on a logarithmic axis.
    """
    legend = 24 * (len(models) if compact else -(-len(models) // 4))
    figure = blank_figure(dark, 400, {"l": 68, "r": 16, "t": 20 + legend, "b": 56})
    for k, model in enumerate(models):
        style = line_style(k, dark)
        share = found.counts[k] / max(1, found.counts[k].sum())
        figure.add_scatter(
            x=float32(found.edges),
            y=float32(100 * np.append(share, share[-1])),
            mode="lines",
            name=f"{label(model)}, mean {found.means[k]:.2f}",
            line={"color": style.colour, "dash": style.dash, "shape": "hv", "width": 2},
            hovertemplate="weight from %{x:.2f}: %{y:.2g} % of the entries",
        )
    figure.update_layout(
        xaxis={"title": {"text": "Weight of an entry, α (H₀ + Hₜ) / (H₀ + Σ α Hₛ)"}, "nticks": 8},
        yaxis={"title": {"text": "Share of the entries (%)"}, "type": "log", "nticks": 5},
        legend=dict(LEGEND_ABOVE),
    )
    return figure
