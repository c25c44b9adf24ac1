"""What was found around and between models: trained paths, simplexes, posterior samples.

Frozen records of numpy arrays, as in `merging.schema.records.alignment`; no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from merging.schema.records.curve import Metric
from merging.schema.records.loss_unit import LossUnit, unit_of_loss


@dataclass(frozen=True, eq=False)
class SimplexLoss:
    """Loss and accuracy of weighted means of three or more models.

    Attributes:
        names: The models, `[m]`.
        weights: `[k, m]` share of every model in every mean; rows sum to 1.
        loss: `[k]` mean loss per example, in `loss_unit`; NaN and infinity are kept as they
            came out.
        accuracy: `[k]` fractions.
        standard_error: `[k]` standard error of the loss over the examples.
        resolution: Steps along an edge.
        split: The examples' name.
        examples: Number of examples behind every value.
        statistics: What was done about the statistics of hidden units, in words.
    """

    names: tuple[str, ...]
    weights: NDArray[np.float64]
    loss: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    resolution: int
    split: str = ""
    examples: int = 0
    statistics: str = "interpolated"

    @property
    def loss_unit(self) -> LossUnit:
        """Nats; or squared error, where numbers are predicted."""
        return unit_of_loss(self.accuracy)

    @property
    def best(self) -> int:
        """Row of the lowest finite loss; -1 if there is none."""
        known = np.where(np.isfinite(self.loss), self.loss, np.inf)
        return int(known.argmin()) if np.isfinite(known).any() else -1

    def corner(self, name: str, metric: Metric = "loss") -> float:
        """Return the loss or accuracy of a model by itself; NaN if it is not there yet."""
        found = np.flatnonzero(self.weights[:, self.names.index(name)] == 1)
        values = self.loss if metric == "loss" else self.accuracy
        return float(values[found[0]]) if found.size else float("nan")

    def face(self, names: tuple[str, str, str]) -> SimplexLoss:
        """Return the means of three of the models alone."""
        columns = [self.names.index(name) for name in names]
        rows = self.weights[:, columns].sum(1) > 1 - 1e-9
        return SimplexLoss(
            names=names,
            weights=self.weights[rows][:, columns],
            loss=self.loss[rows],
            accuracy=self.accuracy[rows],
            standard_error=self.standard_error[rows],
            resolution=self.resolution,
            split=self.split,
            examples=self.examples,
            statistics=self.statistics,
        )
