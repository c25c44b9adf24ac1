"""From loss or accuracy to colour: the shared range, its ticks in plain units, the level lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from merging.schema.records.curve import Metric
from merging.schema.records.loss_unit import LossUnit, shared_unit
from merging.visualization.surfaces.grid import Shown
from merging.visualization.theme import CIVIDIS, CIVIDIS_REVERSED
from merging.visualization.ticks import even_values, round_values
from merging.visualization.wording import loss_title

FLOOR = 1e-6
LEVELS = 11


@dataclass(frozen=True)
class ColourScale:
    """The colours of one or of several panels.

    Attributes:
        metric: What is shown. Loss is coloured by its logarithm to base 10, accuracy in per cent.
        low: Lowest coloured value, in that coordinate.
        high: Highest coloured value.
        beyond_low: Whether values lie below `low`.
        beyond_high: Whether values lie above `high`.
        loss_unit: Unit of the losses.
    """

    metric: Metric
    low: float
    high: float
    beyond_low: bool
    beyond_high: bool
    loss_unit: LossUnit = "nats"

    @property
    def title(self) -> str:
        """Title of a colour bar that has room."""
        return loss_title(self.loss_unit) if self.metric == "loss" else "Accuracy (%)"

    @property
    def colours(self) -> list[str]:
        """Dark blue where the model is good: where loss is low, or accuracy high."""
        return list(CIVIDIS if self.metric == "loss" else CIVIDIS_REVERSED)

    def coordinate(self, part: Shown) -> NDArray[np.float64]:
        """Return what is coloured: the logarithm of the loss, or the accuracy in per cent."""
        return _coordinate(part, self.metric)

    def levels(self) -> dict[str, float]:
        """Place level lines at the same values in every panel that shares the scale."""
        step = (self.high - self.low) / LEVELS
        return {"start": self.low + step, "end": self.high - step / 2, "size": step}

    def ticks(self) -> tuple[list[float], list[str]]:
        """Return positions on the colour bar, and their values in the unit of the title."""
        if self.metric == "loss":
            values = round_values(10**self.low, 10**self.high)
            positions = [float(np.log10(value)) for value in values]
        else:
            values = even_values(self.low, self.high)
            positions = list(values)
        words = [f"{value:g}" for value in values]
        if self.beyond_high and self.metric == "loss":
            positions, words = _with_end(positions, words, self.high, f"> {10**self.high:.2g}")
        if self.beyond_low and self.metric == "accuracy":
            positions, words = _with_end(positions, words, self.low, f"< {self.low:.0f}")
        return positions, words


def colour_scale(parts: Sequence[Shown], metric: Metric, cap: float | None) -> ColourScale:
    """Make a scale from the 1st to the 99th percentile of all the parts' finite values.

    Args:
        parts: The surfaces that share the scale.
        metric: What is shown.
        cap: Highest coloured loss, or lowest coloured accuracy as a fraction.

    Returns:
        The scale.
    """
    pooled = np.concatenate([_coordinate(part, metric).ravel() for part in parts])
    unit = shared_unit(part.surface.loss_unit for part in parts)
    return scale_of(pooled, metric, cap, unit=unit)


def scale_of(
    values: NDArray[np.float64],
    metric: Metric,
    cap: float | None = None,
    *,
    unit: LossUnit = "nats",
) -> ColourScale:
    """Make a scale from the 1st to the 99th percentile of finite values.

    Args:
        values: In the coordinate that is coloured, see `coloured`.
        metric: What is shown.
        cap: Highest coloured loss, or lowest coloured accuracy as a fraction.
        unit: Unit of the losses.

    Returns:
        The scale.
    """
    pooled = values[np.isfinite(values)]
    if pooled.size == 0:
        return ColourScale(
            metric=metric, low=0.0, high=1.0, beyond_low=False, beyond_high=False, loss_unit=unit
        )
    low, high = (float(end) for end in np.percentile(pooled, [1, 99]))
    if cap is not None and metric == "loss":
        high = min(high, float(np.log10(max(cap, FLOOR))))
    if cap is not None and metric == "accuracy":
        low = max(low, 100 * cap)
    low, high = (low, high) if high > low else (low - 0.05, low + 0.05)
    return ColourScale(
        metric=metric,
        low=low,
        high=high,
        beyond_low=bool(pooled.min() < low - 1e-9),
        beyond_high=bool(pooled.max() > high + 1e-9),
        loss_unit=unit,
    )


def _coordinate(part: Shown, metric: Metric) -> NDArray[np.float64]:
    return coloured(part.surface.loss, part.surface.accuracy, metric)


def coloured(
    loss: NDArray[np.float64], accuracy: NDArray[np.float64], metric: Metric
) -> NDArray[np.float64]:
    """Return log10 of the loss, or the accuracy in per cent; NaN where it is not finite."""
    if metric == "accuracy":
        return np.where(np.isfinite(loss), 100 * accuracy, np.nan)
    with np.errstate(invalid="ignore"):
        return np.log10(np.where(np.isfinite(loss), np.maximum(loss, FLOOR), np.nan))


def _with_end(
    positions: list[float], words: list[str], end: float, word: str
) -> tuple[list[float], list[str]]:
    """Add a tick at the end of the bar, and leave out ticks that its words would cover."""
    span = max(positions, default=end + 1) - min(positions, default=end)
    kept = [k for k, place in enumerate(positions) if abs(place - end) > 0.08 * max(span, 1e-9)]
    return [*(positions[k] for k in kept), end], [*(words[k] for k in kept), word]
