"""How much tuning rules need: accuracy, or squared error, against one of their coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from merging.schema.records.loss_unit import shared_unit
from merging.schema.records.scores import Scan
from merging.visualization.theme import LEGEND_ABOVE, blank_figure, faded, float32, inks, line_style
from merging.visualization.wording import label

_AXES = MappingProxyType({
    "weights": "Factor of every model, α",
    "scale": "Factor of the merged step, λ",
    "t": "Way from the base, t",
})


@dataclass(frozen=True)
class NamedScan:
    """A scan with what screens call its rule and its coefficient."""

    title: str
    knob: str
    scan: Scan


def plot_scans(
    scans: Sequence[NamedScan],
    levels: Sequence[tuple[str, float]] = (),
    *,
    dark: bool = False,
    compact: bool = False,
) -> go.Figure:
    """Draw mean accuracy over the tasks against the coefficient; the best value is ringed.

    Where numbers are predicted the mean loss is drawn.

    Args:
        scans: One line each; they share the axis.
        levels: Names and accuracies that are drawn as level lines, such as the joint model's.
        dark: Whether the page is dark.
        compact: Whether the figure must fit a phone.

    Returns:
        The figure.
    """
    margin = {"l": 60, "r": 16, "t": 16 + 24 * (len(scans) if compact else 1), "b": 56}
    figure = blank_figure(dark, 400 if compact else 440, margin)
    for k, named in enumerate(scans):
        figure.add_traces(_lines(named, k, dark))
    for name, level in levels:
        if np.isfinite(level):
            figure.add_hline(
                y=100 * level,
                line={"color": inks(dark).muted, "width": 1, "dash": "dot"},
                annotation={
                    "text": f"{name} {level:.1%}",
                    "xanchor": "left",
                    "font": {"size": 12, "color": inks(dark).muted},
                },
                annotation_position="top left",
            )
    knobs = list(dict.fromkeys(named.knob for named in scans))
    figure.update_layout(
        xaxis={"title": {"text": " · ".join(_AXES.get(k, k) for k in knobs)}, "nticks": 9},
        yaxis={"title": {"text": mean_title(scans)}, "nticks": 7},
        legend=dict(LEGEND_ABOVE),
        hovermode="x unified",
    )
    return figure


def is_by_loss(scans: Sequence[NamedScan]) -> bool:
    """Say whether nothing is right or wrong, so that losses are compared."""
    return shared_unit(named.scan.loss_unit for named in scans) == "squared error"


def mean_title(scans: Sequence[NamedScan]) -> str:
    """Return what `mean_values` of these scans are, with their unit."""
    if is_by_loss(scans):
        return "Mean loss over the tasks (squared error)"
    return "Mean accuracy over the tasks (%)"


def mean_values(scan: Scan) -> NDArray[np.float64]:
    """Return mean accuracies in per cent; mean losses where numbers are predicted, `[k]`."""
    values = scan.loss if scan.loss_unit == "squared error" else 100 * scan.accuracy
    return np.asarray(values.mean(1))


def _lines(named: NamedScan, k: int, dark: bool) -> list[go.Scatter]:
    scan, style = named.scan, line_style(k, dark)
    mean = mean_values(scan)
    error = 100 * np.sqrt((scan.error**2).sum(1)) / scan.error.shape[1]
    hover = "%{y:.1f} % ± %{customdata:.1f}"
    if scan.loss_unit == "squared error":
        hover = f"%{{y:.3f}} {scan.loss_unit}"
    best = int(np.argmin(np.abs(scan.values - scan.best)))
    band_x = np.concatenate([scan.values, scan.values[::-1]])
    band_y = np.concatenate([mean + 2 * error, (mean - 2 * error)[::-1]])
    return [
        go.Scatter(
            x=float32(band_x), y=float32(band_y),
            fill="toself", fillcolor=faded(style.colour, 0.15),
            line={"width": 0}, hoverinfo="skip", showlegend=False, legendgroup=named.title,
        ),
        go.Scatter(
            x=float32(scan.values), y=float32(mean), customdata=float32(2 * error),
            name=label(named.title), legendgroup=named.title, mode="lines+markers",
            line={"color": style.colour, "width": 2, "dash": style.dash},
            marker={"color": style.colour, "symbol": style.symbol, "size": 7},
            hovertemplate=hover,
        ),
        go.Scatter(
            x=float32(scan.values[[best]]), y=float32(mean[[best]]), mode="markers",
            marker={
                "color": style.colour, "symbol": "circle-open", "size": 16, "line": {"width": 2},
            },
            hoverinfo="skip", showlegend=False, legendgroup=named.title,
        ),
    ]  # fmt: skip
