"""Losses of models drawn by SWAG."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from merging.schema.records.loss_unit import LossUnit, unit_of_loss
from merging.schema.records.surface import PlanePoint


@dataclass(frozen=True, eq=False)
class SwagSamples:
    """Samples of SWAG around one model, projected on a plane.

    Attributes:
        around: The model, as the plane's points name it.
        points: Every sample's projection, and its distance from the plane.
        loss: `[k]` mean loss per example of the samples themselves, in `loss_unit`.
        accuracy: `[k]` fractions.
        mean: Projection of the mean of the snapshots.
        snapshots: Networks that the moments were taken of.
        seconds: Wall-clock time of the collection.
        split: The examples' name.
        examples: Number of examples behind every value.
        statistics: What was done about the statistics of hidden units, in words.
    """

    around: str
    points: tuple[PlanePoint, ...]
    loss: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    mean: PlanePoint
    snapshots: int
    seconds: float
    split: str = ""
    examples: int = 0
    statistics: str = "interpolated"

    @property
    def loss_unit(self) -> LossUnit:
        """Nats; or squared error, where numbers are predicted."""
        return unit_of_loss(self.accuracy)
