"""One order of units for all models of a family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class CommonOrder:
    """Permutations that put several models into one order of units.

    Attributes:
        permutations: One `{group: int64}` per model; the first model's units stay in place.
        objective: Sum of inner products of all pairs of models, at the start and then per step.
        pairwise_cycle_error: Share of units that matchings of two models at a time take elsewhere
            when one goes round three models; NaN if it was not measured.
        cycle_error: Share of units that this order takes elsewhere on such a round.
        seconds: Wall-clock time.
    """

    permutations: tuple[Mapping[str, NDArray[np.int64]], ...]
    objective: tuple[float, ...]
    pairwise_cycle_error: float
    cycle_error: float
    seconds: float
