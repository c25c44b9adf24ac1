"""The unit of a loss: nats, or squared error where numbers are predicted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

LossUnit = Literal["nats", "squared error"]


def unit_of_loss(accuracy: ArrayLike) -> LossUnit:
    """Tell the unit of a loss from the accuracy that was measured with it.

    Args:
        accuracy: Fractions of right answers, of any shape. Where numbers are predicted nothing is
            right or wrong, and all of them are NaN.

    Returns:
        Nats where any accuracy is known, or where there is none at all; else squared error.

    Example:
        >>> unit_of_loss([0.9, 0.8]), unit_of_loss(float("nan"))
        ('nats', 'squared error')
    """
    values = np.asarray(accuracy, dtype=np.float64)
    return "squared error" if values.size and np.isnan(values).all() else "nats"


def shared_unit(units: Iterable[LossUnit]) -> LossUnit:
    """Return the unit of results that are shown together.

    They are of one set of models, so their units agree, unless nothing is there yet of some: those
    say nats.

    Example:
        >>> shared_unit(["nats", "squared error"]), shared_unit([])
        ('squared error', 'nats')
    """
    return "squared error" if "squared error" in set(units) else "nats"
