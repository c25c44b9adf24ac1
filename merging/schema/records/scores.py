"""What was found of fused models, as frozen records: scores by task, scans of a coefficient.

Losses are per example, in the `loss_unit` of their record; accuracies are fractions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merging.schema.records.loss_unit import LossUnit, unit_of_loss
from merging.schema.records.tupled import tupled

NAN = float("nan")


@dataclass(frozen=True)
class TaskScore:
    """What one model does on one task.

    Attributes:
        examples: Number of examples.
        loss: Mean loss.
        loss_error: Standard error of the loss over the examples.
        accuracy: Fraction of right answers; NaN where numbers are predicted.
        accuracy_error: Standard error of the accuracy over the examples.
        calibration_error: Expected calibration error over 15 bins of confidence; NaN where the
            targets are no classes.
        confidences: Mean confidence of every bin; NaN for empty ones.
        rights: Fraction of right answers in every bin.
        counts: Examples in every bin.
    """

    examples: int
    loss: float
    loss_error: float
    accuracy: float
    accuracy_error: float
    calibration_error: float = NAN
    confidences: tuple[float, ...] = ()
    rights: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()

    @property
    def loss_unit(self) -> LossUnit:
        """Nats; or squared error, where numbers are predicted."""
        return unit_of_loss(self.accuracy)

    @staticmethod
    def from_meta(meta: Mapping[str, Any]) -> TaskScore:
        """Read the score from its JSON values."""
        return TaskScore(**tupled(meta))


@dataclass(frozen=True)
class MergedScore:
    """A fused model, or what fused models are compared with, on all tasks.

    Attributes:
        name: The rule, or a reference: `"model 0"` and so on, `"base"`, `"joint"`, `"logits"`,
            `"probabilities"`, `"vote"`.
        tasks: One score per task.
        disagreement: For every parent, the share of all tasks' examples that are answered
            otherwise than by it.
        distances: L2 distance in weight space from every parent.
        base_distance: L2 distance in weight space from the base; NaN without one.
        mismatch: Norm of the gradient mismatch (Daheim et al. 2024, Eq. 6); NaN if unknown.
        seconds: Wall-clock time of fusing.
        bytes: Size of what must be kept to predict.
        notes: What the rule said of its work.
    """

    name: str
    tasks: tuple[TaskScore, ...]
    disagreement: tuple[float, ...] = ()
    distances: tuple[float, ...] = ()
    base_distance: float = NAN
    mismatch: float = NAN
    seconds: float = NAN
    bytes: int = 0
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def loss_unit(self) -> LossUnit:
        """Nats; or squared error, where numbers are predicted."""
        return unit_of_loss([task.accuracy for task in self.tasks])

    @property
    def model_number(self) -> int | None:
        """Which of the models this is the score of, from 0; None for a rule or another reference.

        Example:
            >>> MergedScore("model 3", ()).model_number, MergedScore("base", ()).model_number
            (3, None)
        """
        kind, _, number = self.name.partition(" ")
        return int(number) if kind == "model" and number.isdecimal() else None

    @property
    def accuracy(self) -> float:
        """Mean accuracy over the tasks."""
        return sum(task.accuracy for task in self.tasks) / len(self.tasks)

    @property
    def accuracy_error(self) -> float:
        """Standard error of the mean accuracy over the examples."""
        return _mean_error([task.accuracy_error for task in self.tasks])

    @property
    def loss(self) -> float:
        """Mean loss over the tasks."""
        return sum(task.loss for task in self.tasks) / len(self.tasks)

    @property
    def loss_error(self) -> float:
        """Standard error of the mean loss over the examples."""
        return _mean_error([task.loss_error for task in self.tasks])

    @property
    def calibration_error(self) -> float:
        """Mean expected calibration error over the tasks."""
        return sum(task.calibration_error for task in self.tasks) / len(self.tasks)

    @staticmethod
    def from_meta(meta: Mapping[str, Any]) -> MergedScore:
        """Read the score from its JSON values."""
        tasks = tuple(TaskScore.from_meta(task) for task in meta["tasks"])
        return MergedScore(**{**tupled(meta), "tasks": tasks})


@dataclass(frozen=True)
class ScanPoint:
    """A rule with one coefficient at one value, and how good it is there."""

    value: float
    score: MergedScore


@dataclass(frozen=True, eq=False)
class Scan:
    """A rule with one coefficient at several values.

    Attributes:
        rule: The rule's name.
        values: `[k]` values of the coefficient, ascending.
        loss: `[k, tasks]` mean losses.
        accuracy: `[k, tasks]` fractions.
        error: `[k, tasks]` standard errors of the accuracy over the examples.
        mismatch: `[k]` gradient mismatch; NaN if unknown.
        split: Which examples, in words.
    """

    rule: str
    values: NDArray[np.float64]
    loss: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    error: NDArray[np.float64]
    mismatch: NDArray[np.float64]
    split: str

    @property
    def loss_unit(self) -> LossUnit:
        """Nats; or squared error, where numbers are predicted."""
        return unit_of_loss(self.accuracy)

    @property
    def best(self) -> float:
        """The value of the highest mean accuracy (of the lowest loss where nothing is right)."""
        mean = self.accuracy.mean(1)
        k = np.argmin(self.loss.mean(1)) if np.isnan(mean).all() else np.nanargmax(mean)
        return float(self.values[k])


@dataclass(frozen=True, eq=False)
class Mixtures:
    """Weighted means of several models, over a grid of shares.

    Attributes:
        steps: Steps from one model to another; shares are multiples of 1 / steps.
        shares: `[k, models]`, every row adds up to 1.
        loss: `[k, tasks]` mean losses.
        accuracy: `[k, tasks]` fractions.
        split: Which examples, in words.
    """

    steps: int
    shares: NDArray[np.float64]
    loss: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    split: str

    @property
    def loss_unit(self) -> LossUnit:
        """Nats; or squared error, where numbers are predicted."""
        return unit_of_loss(self.accuracy)


def _mean_error(errors: list[float]) -> float:
    return math.sqrt(sum(error**2 for error in errors)) / len(errors)
