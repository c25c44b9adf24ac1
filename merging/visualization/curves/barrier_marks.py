"""The marks of a barrier on a curve: its baseline, a double arrow at its top, its words.

They are traces and not annotations, so that a click on the legend takes them along.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from merging.schema.cards.titles import NAIVE
from merging.schema.records.curve import Barrier, Baseline, Curve
from merging.visualization.curves.curve_values import DrawnCurve, NamedCurve
from merging.visualization.theme import faded, float32, inks, method_style
from merging.visualization.wording import barrier_words


@dataclass(frozen=True)
class AxisScale:
    """An axis' own coordinate (a logarithm on a logarithmic axis) and the range it shows."""

    log: bool
    low: float
    high: float

    @property
    def span(self) -> float:
        """Length of the axis."""
        return self.high - self.low

    def level(self, value: float) -> float:
        """Return where a value lies on the axis; below a logarithmic axis if it is not positive."""
        if not self.log:
            return float(value)
        return float(np.log10(value)) if value > 0 else self.low - self.span

    def value(self, level: float) -> float:
        """Return the value at a level."""
        return float(10**level) if self.log else level


def choose(curves: Sequence[NamedCurve], baseline: Baseline) -> list[NamedCurve]:
    """Choose the curves whose barrier is marked: the naive one, and the lowest aligned one.

    Paths have no mark: they were trained to have no barrier.

    Both are of the test split where there is one, and neither has a barrier that is NaN.
    """
    curves = [named for named in curves if not named.on_path]
    splits = {named.curve.split for named in curves}
    split = "test" if "test" in splits else next((n.curve.split for n in curves), "")
    heights = [
        (named, named.curve.barrier(baseline)) for named in curves if named.curve.split == split
    ]
    known = [(named, height) for named, height in heights if np.isfinite(height)]
    naive = [named for named, _ in known if named.method == NAIVE][:1]
    aligned = [pair for pair in known if pair[0].method != NAIVE]
    return naive + [named for named, _ in sorted(aligned, key=lambda pair: pair[1])[:1]]


def traces(
    marked: Sequence[NamedCurve],
    curves: Sequence[DrawnCurve],
    baseline: Baseline,
    axis: go.layout.YAxis,
    dark: bool,
    compact: bool,
) -> list[go.Scatter]:
    """Draw the marks of every marked curve, for the loss row.

    Args:
        marked: The curves to mark, from `choose`.
        curves: All curves that are drawn, which words must not cover.
        baseline: What barriers are measured above.
        axis: The loss axis, with its range.
        dark: Whether the page is dark.
        compact: Whether the figure must fit a phone.

    Returns:
        Baseline, arrow and words of each curve, in its legend group. A barrier too low for an
        arrow has none.
    """
    scale = AxisScale(axis.type == "log", *axis.range)
    barriers = [named.curve.locate_barrier(baseline) for named in marked]
    arrows = [_span(named, at, scale) for named, at in zip(marked, barriers, strict=True)]
    room = scale.span * (0.17 if compact else 0.085)
    result, taken = [], list(arrows)
    for named, barrier, arrow in zip(marked, barriers, arrows, strict=True):
        colour = method_style(named.method).colour(dark)
        shared = {"legendgroup": named.title, "showlegend": False, "hoverinfo": "skip"}
        result.append(_baseline(named.curve, baseline, colour, shared))
        if arrow[1] - arrow[0] > 0.06 * scale.span:
            result.append(_arrow(barrier, arrow, scale, colour, shared))
        bands = _bands(curves, barrier.lam, 0.3 if compact else 0.12, scale)
        level = _clear_level(arrow[1], bands + taken, scale, room)
        taken.append((level - room / 2, level + room / 2))
        result.append(_words(named, barrier, scale.value(level), shared, dark, compact))
    return result


def _span(named: NamedCurve, barrier: Barrier, scale: AxisScale) -> tuple[float, float]:
    """Return the span from the baseline to the top of the barrier, as levels of the axis."""
    top = named.curve.at(barrier.lam)[0]
    return scale.level(top - barrier.value), scale.level(top)


def _baseline(curve: Curve, baseline: Baseline, colour: str, shared: dict[str, Any]) -> go.Scatter:
    inside = curve.lams[(curve.lams >= 0) & (curve.lams <= 1)]
    first, last = curve.at(inside[0])[0], curve.at(inside[-1])[0]
    weight = inside if baseline == "linear" else np.full(inside.size, 0.5)
    return go.Scatter(
        x=float32(inside),
        y=float32((1 - weight) * first + weight * last),
        mode="lines",
        line={"color": faded(colour, 0.9), "width": 1.5, "dash": "dot"},
        **shared,
    )


def _arrow(
    barrier: Barrier,
    arrow: tuple[float, float],
    scale: AxisScale,
    colour: str,
    shared: dict[str, Any],
) -> go.Scatter:
    return go.Scatter(
        x=float32([barrier.lam] * 2),
        y=float32([scale.value(level) for level in arrow]),
        mode="lines+markers",
        line={"color": colour, "width": 1.5},
        marker={"color": colour, "symbol": ["arrow-down", "arrow-up"], "size": 10},
        **shared,
    )


def _words(
    named: NamedCurve,
    barrier: Barrier,
    height: float,
    shared: dict[str, Any],
    dark: bool,
    compact: bool,
) -> go.Scatter:
    style = method_style(named.method)
    words = barrier_words(barrier)
    if compact:
        words = words.replace(" at ", "<br>at ")
    side = "right" if barrier.lam < 0.15 else "left" if barrier.lam > 0.85 else "center"
    return go.Scatter(
        x=float32([barrier.lam]),
        y=float32([height]),
        mode="text",
        text=[f'<span style="color:{style.colour(dark)}">{style.glyph}</span> {words}'],
        textposition=f"middle {side}",
        textfont={"size": 13, "color": inks(dark).text},
        cliponaxis=False,
        **shared,
    )


def _bands(
    curves: Sequence[DrawnCurve], lam: float, share: float, scale: AxisScale
) -> list[tuple[float, float]]:
    """Return what the curves' bands cover near a position, as levels of the axis."""
    covered = []
    for drawn in curves:
        near = np.abs(drawn.loss.lams - lam) <= share
        mean, half = drawn.loss.mean[near], 2 * drawn.loss.error[near]
        known = np.isfinite(mean) & np.isfinite(half)
        for low, high in zip((mean - half)[known], (mean + half)[known], strict=True):
            covered.append((scale.level(low), scale.level(high)))
    return covered


def _clear_level(
    head: float, blocked: list[tuple[float, float]], scale: AxisScale, room: float
) -> float:
    """Return the level nearest to the arrow's head where words of this height cover the least."""
    levels = np.linspace(scale.low + 0.5 * room, scale.high - 0.5 * room, 121)
    low, high = np.array(blocked).T
    over = np.minimum(levels[:, None] + room / 2, high) - np.maximum(
        levels[:, None] - room / 2, low
    )
    overlap = np.clip(over, -0.05 * room, None).max(axis=1)
    clear = levels[overlap <= overlap.min() + 1e-9]
    return float(clear[np.argmin(np.abs(clear - head))])
