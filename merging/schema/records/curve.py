"""Loss and accuracy along a line, and the barrier on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from merging.schema.errors import UnknownNameError
from merging.schema.records.loss_unit import LossUnit, unit_of_loss

Baseline = Literal["endpoints-mean", "linear"]
Metric = Literal["loss", "accuracy"]


@dataclass(frozen=True)
class Barrier:
    """The highest rise of a curve above its baseline.

    For accuracy the rise is the drop below the baseline, so a barrier is bad for either metric.
    """

    value: float
    lam: float
    standard_error: float
    baseline: Baseline
    metric: Metric


@dataclass(frozen=True, eq=False)
class Curve:
    """Loss and accuracy along the line from model A to model B.

    Attributes:
        lams: `[k]` positions; within `[0, 1]` unless the curve overshoots.
        loss: `[k]` mean loss per example, in `loss_unit`.
        accuracy: `[k]` fraction of the examples that are classified correctly; NaN where the
            targets are numbers.
        example_losses: `[k, n]` the loss of every example, float32.
        example_correct: `[k, n]` whether every example is classified correctly (of tokens the
            share; NaN where the targets are numbers).
        statistics: What was done about the statistics of hidden units, in words.
        split: The examples' name, such as `"test"`.
    """

    lams: NDArray[np.float64]
    loss: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    example_losses: NDArray[np.float32]
    example_correct: NDArray[np.bool_] | NDArray[np.float32]
    statistics: str = "interpolated"
    split: str = ""

    @property
    def examples(self) -> int:
        """Number of examples behind every value."""
        return int(self.example_losses.shape[1])

    @property
    def loss_unit(self) -> LossUnit:
        """Nats; or squared error, where numbers are predicted and nothing is right or wrong."""
        return unit_of_loss(self.accuracy)

    def standard_error(self, metric: Metric = "loss") -> NDArray[np.float64]:
        """Return the standard error over the examples, `[k]`."""
        values = self._example_values(metric)
        return values.std(axis=1, ddof=1) / np.sqrt(values.shape[1])

    def barrier(self, baseline: Baseline = "endpoints-mean", metric: Metric = "loss") -> float:
        """Return the loss barrier, or the accuracy barrier.

        Args:
            baseline: `"endpoints-mean"` measures above the mean of the two end points (Frankle et
                al. 2020; Ainsworth et al. 2023, Definition 2.2), `"linear"` above the straight
                line between them (Entezari et al. 2022, Eq. 1).
            metric: `"loss"`, or `"accuracy"` for the drop in accuracy.

        Returns:
            The largest rise over the positions in `[0, 1]`. NaN if any value there is NaN.

        Raises:
            UnknownNameError: If `baseline` or `metric` is neither of its choices.
        """
        return self.locate_barrier(baseline, metric).value

    def locate_barrier(
        self, baseline: Baseline = "endpoints-mean", metric: Metric = "loss"
    ) -> Barrier:
        """Find the barrier, its position and its standard error over the (paired) examples.

        Args:
            baseline: As in `barrier`.
            metric: As in `barrier`.

        Returns:
            The barrier.

        Raises:
            UnknownNameError: If `baseline` or `metric` is neither of its choices.
        """
        values = -self.accuracy if metric == "accuracy" else self.loss
        inside = np.flatnonzero((self.lams >= 0) & (self.lams <= 1))
        first, last = int(inside[0]), int(inside[-1])
        weight = self._end_weight(baseline, inside)
        rise = values[inside] - ((1 - weight) * values[first] + weight * values[last])
        top = int(np.argmax(rise))  # argmax treats NaN as the largest: a NaN rise is reported
        examples = self._example_values(metric) * (-1 if metric == "accuracy" else 1)
        with np.errstate(invalid="ignore"):
            paired = examples[inside[top]] - (
                (1 - weight[top]) * examples[first] + weight[top] * examples[last]
            )
            error = float(paired.std(ddof=1) / np.sqrt(paired.size))
        return Barrier(
            value=float(rise[top]),
            lam=float(self.lams[inside[top]]),
            standard_error=error,
            baseline=baseline,
            metric=metric,
        )

    def at(self, lam: float) -> tuple[float, float]:
        """Return loss and accuracy at the position nearest to `lam`."""
        k = int(np.argmin(np.abs(self.lams - lam)))
        return float(self.loss[k]), float(self.accuracy[k])

    def _end_weight(self, baseline: Baseline, inside: NDArray[np.intp]) -> NDArray[np.float64]:
        if baseline == "linear":
            return self.lams[inside]
        if baseline == "endpoints-mean":
            return np.full(inside.size, 0.5)
        raise UnknownNameError(
            f"unknown barrier baseline {baseline!r}; choose from 'endpoints-mean', 'linear'"
        )

    def _example_values(self, metric: Metric) -> NDArray[np.float64]:
        if metric == "loss":
            return self.example_losses.astype(np.float64)
        if metric == "accuracy":
            return self.example_correct.astype(np.float64)
        raise UnknownNameError(f"unknown metric {metric!r}; choose from 'loss', 'accuracy'")


def mean_curve(
    lams: NDArray[np.float64],
    example_losses: NDArray[np.float32],
    example_correct: NDArray[np.bool_] | NDArray[np.float32],
    *,
    statistics: str = "interpolated",
    split: str = "",
) -> Curve:
    """Return the curve whose loss and accuracy are means over the examples, in float64.

    Args:
        lams: `[k]` positions.
        example_losses: `[k, n]`.
        example_correct: `[k, n]`.
        statistics: As in `Curve`.
        split: As in `Curve`.

    Returns:
        The curve.
    """
    return Curve(
        lams=lams,
        loss=example_losses.mean(1, dtype=np.float64),
        accuracy=example_correct.mean(1, dtype=np.float64),
        example_losses=example_losses,
        example_correct=example_correct,
        statistics=statistics,
        split=split,
    )
