"""Ask for the loss of mixtures of three models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from merging.results.compute.entry import Entry
from merging.results.requests.common_order import OrderRequest
from merging.results.requests.family import Family
from merging.results.requests.fusion import FusedStatistics, JudgedSplit
from merging.results.requests.request import Request
from merging.results.requests.wire import flat_entry, flat_record
from merging.schema.records.scores import Mixtures

_MOST_MIXTURES = 300  # points of the grid of shares


@dataclass(frozen=True)
class MixturesRequest(Request[Mixtures]):
    """Weighted means of all models over a grid of shares."""

    task: ClassVar[str] = "mixtures"
    words: ClassVar[str] = "Weighted means over a grid of shares"
    family: Family
    order: OrderRequest | None = None
    statistics: FusedStatistics = "merged"
    split: JudgedSplit = "validation"

    def needs(self) -> tuple[Request[Any], ...]:
        """Return the common order."""
        return () if self.order is None else (self.order,)

    def steps(self) -> int:
        """Return the steps of the grid: as fine as the number of points allows."""
        models, steps = len(self.family.models), 1
        while steps < 20 and _points(models, steps + 1) <= _MOST_MIXTURES:
            steps += 1
        return steps

    def encode(self, found: Mixtures) -> Entry:
        """Return the grid as it is stored."""
        return flat_entry(found)

    def decode(self, entry: Entry) -> Mixtures:
        """Return the grid."""
        return flat_record(Mixtures, entry)


def _points(models: int, steps: int) -> int:
    """Count a simplex's points whose `models` shares are multiples of `1 / steps`."""
    points = 1
    for k in range(1, models):
        points = points * (steps + k) // k
    return points
