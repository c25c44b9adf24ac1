"""Gradient mismatch against test error, over rules and their coefficients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from merging.visualization.merges.scans import NamedScan
from merging.visualization.theme import LEGEND_ABOVE, blank_figure, float32, line_style
from merging.visualization.wording import label


def plot_mismatch(
    scans: Sequence[NamedScan], *, dark: bool = False, compact: bool = False
) -> go.Figure:
    """Draw one point per rule and value of its coefficient (Daheim et al. 2024, Fig. 1, right).

    Args:
        scans: Scans on test examples, with gradient mismatch.
        dark: Whether the page is dark.
        compact: Whether the figure must fit a phone.

    Returns:
        The figure; what has no mismatch is left out.
    """
    margin = {"l": 60, "r": 16, "t": 16 + 24 * (len(scans) if compact else 1), "b": 56}
    figure = blank_figure(dark, 400 if compact else 440, margin)
    for k, named in enumerate(scans):
        style = line_style(k, dark)
        known = np.isfinite(named.scan.mismatch)
        figure.add_scatter(
            x=float32(named.scan.mismatch[known]),
            y=float32(100 * (1 - named.scan.accuracy.mean(1)[known])),
            customdata=float32(named.scan.values[known]),
            name=label(named.title),
            mode="lines+markers",
            line={"color": style.colour, "width": 1, "dash": "dot"},
            marker={"color": style.colour, "symbol": style.symbol, "size": 9},
            hovertemplate="at %{customdata:.2g}: mismatch %{x:.3g}, error %{y:.1f} %",
        )
    figure.update_layout(
        xaxis={"title": {"text": "Gradient mismatch (length)"}, "type": "log", "nticks": 6},
        yaxis={"title": {"text": "Mean test error over the tasks (%)"}, "nticks": 7},
        legend=dict(LEGEND_ABOVE),
    )
    return figure


def rank_correlation(scans: Sequence[NamedScan]) -> float:
    """Spearman's correlation of mismatch and test error over all points; NaN for fewer than 3."""
    mismatch = np.concatenate([named.scan.mismatch for named in scans] or [np.empty(0)])
    error = np.concatenate([1 - n.scan.accuracy.mean(1) for n in scans] or [np.empty(0)])
    known = np.isfinite(mismatch) & np.isfinite(error)
    if known.sum() < 3:
        return float("nan")
    return float(np.corrcoef(_ranks(mismatch[known]), _ranks(error[known]))[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    means: NDArray[np.float64] = ends - (counts - 1) / 2
    return means[inverse]
