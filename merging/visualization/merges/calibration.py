"""Reliability diagrams: how often a model is right where it is so and so sure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from merging.visualization.merges.rule_scores import NamedScore
from merging.visualization.theme import LEGEND_ABOVE, blank_figure, float32, inks, line_style
from merging.visualization.wording import label


def plot_reliability(
    scores: Sequence[NamedScore], *, dark: bool = False, compact: bool = False
) -> go.Figure:
    """Draw accuracy against confidence, all tasks' examples together, one line per model.

    On the diagonal a model is right as often as it says. The size of a marker says how many
    examples are in its bin.

    Args:
        scores: The models.
        dark: Whether the page is dark.
        compact: Whether the figure must fit a phone.

    Returns:
        The figure.
    """
    margin = {"l": 60, "r": 16, "t": 16 + 24 * (len(scores) if compact else 1), "b": 56}
    figure = blank_figure(dark, 420 if compact else 460, margin)
    ends = np.array([0, 1], np.float32)
    figure.add_scatter(
        x=ends, y=ends, mode="lines", hoverinfo="skip", showlegend=False,
        line={"color": inks(dark).axis, "width": 1, "dash": "dot"},
    )  # fmt: skip
    for k, named in enumerate(scores):
        style = line_style(k, dark)
        confidence, right, counts = pooled(named)
        filled = counts > 0
        sizes = 4 + 14 * np.sqrt(counts[filled] / max(counts.max(), 1))
        figure.add_scatter(
            x=float32(confidence[filled]),
            y=float32(right[filled]),
            customdata=counts[filled].astype(np.int32),
            name=label(named.title),
            mode="lines+markers",
            line={"color": style.colour, "width": 1.5, "dash": style.dash},
            marker={"color": style.colour, "symbol": style.symbol, "size": float32(sizes)},
            hovertemplate="confidence %{x:.2f}, right %{y:.2f}, %{customdata:,} examples",
        )
    figure.update_layout(
        xaxis={"title": {"text": "Mean confidence of a bin"}, "range": [0, 1.03]},
        yaxis={"title": {"text": "Share of right answers"}, "range": [0, 1.03]},
        legend=dict(LEGEND_ABOVE),
    )
    return figure


def pooled(named: NamedScore) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return confidence, share of right answers and number of examples of every bin.

    Empty bins have NaN.
    """
    tasks = [task for task in named.score.tasks if task.counts]
    counts = np.array([task.counts for task in tasks], dtype=np.float64)
    total = counts.sum(0)

    def mean(name: str) -> np.ndarray:
        values = np.nan_to_num(np.array([getattr(task, name) for task in tasks]))
        with np.errstate(invalid="ignore"):
            found: np.ndarray = (counts * values).sum(0) / total
        return found

    return mean("confidences"), mean("rights"), total
