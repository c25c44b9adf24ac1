"""How much tuning rules need: accuracy against one of their coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import plotly.graph_objects as go

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
        yaxis={"title": {"text": "Mean accuracy over the tasks (%)"}, "nticks": 7},
        legend=dict(LEGEND_ABOVE),
        hovermode="x unified",
    )
    return figure


def _lines(named: NamedScan, k: int, dark: bool) -> list[go.Scatter]:
    scan, style = named.scan, line_style(k, dark)
    mean = 100 * scan.accuracy.mean(1)
    error = 100 * np.sqrt((scan.error**2).sum(1)) / scan.error.shape[1]
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
            hovertemplate="%{y:.1f} % ± %{customdata:.1f}",
        ),
        go.Scatter(
            x=float32(scan.values[[best]]), y=float32(mean[[best]]), mode="markers",
            marker={
                "color": style.colour, "symbol": "circle-open", "size": 16, "line": {"width": 2},
            },
            hoverinfo="skip", showlegend=False, legendgroup=named.title,
        ),
    ]  # fmt: skip
