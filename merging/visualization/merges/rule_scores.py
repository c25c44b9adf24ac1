"""Accuracy of every fused model and reference on every task, as a grid of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from merging.schema.records.loss_unit import LossUnit, shared_unit
from merging.schema.records.scores import MergedScore
from merging.visualization.theme import CIVIDIS, blank_figure, float32, inks
from merging.visualization.wording import label

_LETTER = 7  # about the mean width of a letter at the size of tick labels, in pixels
_ROW = 30


@dataclass(frozen=True)
class NamedScore:
    """A score with what screens call it.

    Attributes:
        title: What screens call it.
        reference: Whether it is no merge, but what merges are compared with.
        score: The score.
    """

    title: str
    reference: bool
    score: MergedScore


def plot_rule_scores(
    scores: Sequence[NamedScore],
    tasks: Sequence[str],
    *,
    dark: bool = False,
    compact: bool = False,
) -> go.Figure:
    """Draw one row per model and one column per task, the mean over the tasks first.

    Where numbers are predicted the loss is drawn.

    Args:
        scores: References and fused models; each kind is sorted, the best on top.
        tasks: What screens call the tasks.
        dark: Whether the page is dark.
        compact: Whether the figure must fit a phone.

    Returns:
        The figure.
    """
    rows = sorted_scores(scores)
    by_loss = is_by_loss(rows)
    shape = (len(rows), 1 + len(tasks))
    values = np.array([_values(row.score, by_loss) for row in rows]).reshape(shape)
    errors = np.array([_errors(row.score, by_loss) for row in rows]).reshape(shape)
    names = [label(row.title, 18 if compact else 34) for row in rows]
    columns = ["Mean", *(label(task, 9 if compact else 22) for task in tasks)]
    unit = shared_unit(row.score.loss_unit for row in rows)
    left = 16 + _LETTER * max(map(len, names), default=0)
    gap = sum(row.reference for row in rows)
    # Slanted names of columns reach out to the right, and a phone has no room there.
    angle = -90 if compact else -35 if len(columns) > 7 else 0
    top, right = (84 if compact else 64), (60 if angle == -35 else 8)
    height = top + 12 + _ROW * len(rows)
    figure = blank_figure(dark, height, {"l": left, "r": right, "t": top, "b": 12})
    figure.add_trace(
        go.Heatmap(
            z=float32(values),
            customdata=float32(2 * errors),
            colorscale=list(CIVIDIS[::-1] if by_loss else CIVIDIS),
            showscale=False,
            xgap=2,
            ygap=2,
            hovertemplate=_hover(unit),
            hoverongaps=False,
        )
    )
    figure.add_traces(_numbers(values, by_loss, compact))
    figure.update_layout(
        xaxis={
            "tickvals": np.arange(len(columns)),
            "ticktext": [f"<b>{columns[0]}</b>", *columns[1:]],
            "side": "top",
            "showgrid": False,
            "ticks": "",
            "tickangle": angle,
        },
        yaxis={
            "tickvals": np.arange(len(rows)),
            "ticktext": names,
            "range": [len(rows) - 0.5, -0.5],
            "showgrid": False,
            "ticks": "",
        },
        showlegend=False,
    )
    if 0 < gap < len(rows):
        figure.add_hline(y=gap - 0.5, line={"color": inks(dark).text, "width": 2})
    return figure


def sorted_scores(scores: Sequence[NamedScore]) -> list[NamedScore]:
    """Sort references first, then fused models, each from the best to the worst."""
    by_loss = is_by_loss(scores)

    def order(row: NamedScore) -> tuple[bool, float]:
        return not row.reference, row.score.loss if by_loss else -row.score.accuracy

    return sorted(scores, key=order)


def is_by_loss(scores: Sequence[NamedScore]) -> bool:
    """Say whether nothing is right or wrong, so that losses are compared."""
    return shared_unit(row.score.loss_unit for row in scores) == "squared error"


def _values(score: MergedScore, by_loss: bool) -> list[float]:
    if by_loss:
        return [score.loss, *(task.loss for task in score.tasks)]
    return [100 * score.accuracy, *(100 * task.accuracy for task in score.tasks)]


def _errors(score: MergedScore, by_loss: bool) -> list[float]:
    if by_loss:
        return [score.loss_error, *(task.loss_error for task in score.tasks)]
    return [100 * score.accuracy_error, *(100 * task.accuracy_error for task in score.tasks)]


def _hover(unit: LossUnit) -> str:
    value = "%{z:.1f} % ± %{customdata:.1f}"
    if unit == "squared error":
        value = f"%{{z:.3f}} ± %{{customdata:.3f}} {unit}"
    return f"%{{y}}, %{{x}}: {value} (two standard errors)<extra></extra>"


def _numbers(values: np.ndarray, by_loss: bool, compact: bool) -> list[go.Scatter]:
    """Draw the numbers on the cells, dark on light cells and light on dark ones."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return []
    low, high = float(finite.min()), float(finite.max())
    share = (values - low) / max(high - low, 1e-12)
    light = (share < 0.5) if by_loss else (share > 0.5)  # the yellow half of the scale
    traces = []
    for chosen, colour in ((light, "#10131a"), (~light, "#ffffff")):
        y, x = np.nonzero(chosen & np.isfinite(values))
        form = "{:.2f}" if by_loss else "{:.1f}"
        traces.append(
            go.Scatter(
                x=x.astype(np.int16),
                y=y.astype(np.int16),
                text=[form.format(v) for v in values[y, x]],
                mode="text",
                textfont={"size": 11 if compact else 13, "color": colour},
                hoverinfo="skip",
            )
        )
    return traces
