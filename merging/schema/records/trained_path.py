"""A trained path between two models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from merging.schema.records.loss_unit import LossUnit


@dataclass(frozen=True)
class TrainedPath:
    """How a path between two models was trained, without its weights.

    Attributes:
        kind: `"bezier"`, `"chain"` or `"neb"`.
        history: Training loss per example, in `loss_unit`, averaged over runs of steps.
        converged: Whether training settled before its steps ran out.
        stopped: Whether a person stopped it.
        seconds: Wall-clock time.
        bends: Corners between the models.
        length: Length of the path, as a multiple of the straight line's.
        distance: How far the farthest bend lies from the straight line, as a share of its length.
        options: The options that were used.
        seed: The seed.
        loss_unit: Unit of the training loss. Results that were kept before this lack it.
    """

    kind: str
    history: tuple[float, ...]
    converged: bool
    stopped: bool
    seconds: float
    bends: int
    length: float
    distance: float
    options: Mapping[str, object] = field(default_factory=dict)
    seed: int = 0
    loss_unit: LossUnit = "nats"


@dataclass(frozen=True, eq=False)
class StoredPath:
    """A trained path with what it can be followed by again.

    Attributes:
        path: The path.
        bends: float32 `[corners - 2, n]` its inner corners, all floating tensors end to end; None
            while it is trained.
        knots: Positions of all corners on the path.
    """

    path: TrainedPath
    bends: NDArray[np.float32] | None = None
    knots: tuple[float, ...] = ()
