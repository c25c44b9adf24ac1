"""A trained path between two models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TrainedPath:
    """How a path between two models was trained, without its weights.

    Attributes:
        kind: `"bezier"`, `"chain"` or `"neb"`.
        history: Training loss (nats per example), averaged over runs of steps.
        converged: As of `merging.landscape.Path`.
        stopped: Whether a person stopped it.
        seconds: Wall-clock time.
        bends: Corners between the models.
        length: Length of the path, as a multiple of the straight line's.
        distance: How far the farthest bend lies from the straight line, as a share of its length.
        options: The options that were used.
        seed: The seed.
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
