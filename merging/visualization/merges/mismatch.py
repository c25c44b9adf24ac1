"""Gradient mismatch against test error, over rules and their coefficients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from merging.schema.records.scores import Scan
from merging.visualization.merges.scans import NamedScan, is_by_loss
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
            y=float32(mean_errors(named.scan)[known]),
            customdata=float32(named.scan.values[known]),
            name=label(named.title),
            mode="lines+markers",
            line={"color": style.colour, "width": 1, "dash": "dot"},
            marker={"color": style.colour, "symbol": style.symbol, "size": 9},
            hovertemplate=f"at %{{customdata:.2g}}: mismatch %{{x:.3g}}, {_hover(named.scan)}",
        )
    figure.update_layout(
        xaxis={"title": {"text": "Gradient mismatch (length)"}, "type": "log", "nticks": 6},
        yaxis={"title": {"text": error_title(scans)}, "nticks": 7},
        legend=dict(LEGEND_ABOVE),
    )
    return figure


def rank_correlation(scans: Sequence[NamedScan]) -> float:
    """Return Spearman's correlation of mismatch and test error; NaN for fewer than 3 points."""
    mismatch = np.concatenate([named.scan.mismatch for named in scans] or [np.empty(0)])
    error = np.concatenate([mean_errors(named.scan) for named in scans] or [np.empty(0)])
    known = np.isfinite(mismatch) & np.isfinite(error)
    if known.sum() < 3:
        return float("nan")
    return float(np.corrcoef(_ranks(mismatch[known]), _ranks(error[known]))[0, 1])


def mean_errors(scan: Scan) -> NDArray[np.float64]:
    """Return mean errors over the tasks in per cent, `[k]`; losses where numbers are predicted."""
    values = scan.loss if scan.loss_unit == "squared error" else 100 * (1 - scan.accuracy)
    return np.asarray(values.mean(1))


def error_title(scans: Sequence[NamedScan]) -> str:
    """Return what `mean_errors` of these scans are, with their unit."""
    if is_by_loss(scans):
        return "Mean test loss over the tasks (squared error)"
    return "Mean test error over the tasks (%)"


def _hover(scan: Scan) -> str:
    if scan.loss_unit == "squared error":
        return f"loss %{{y:.3g}} {scan.loss_unit}"
    return "error %{y:.1f} %"


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank values; equal ones share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    means: NDArray[np.float64] = ends - (counts - 1) / 2
    return means[inverse]
