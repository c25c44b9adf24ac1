"""Ask for the curvature of a model's loss, or of its optimizer's second moment."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from merging.results.compute.entry import Entry
from merging.results.requests.request import Request
from merging.schema.cards.fusion.curvature import MOMENT_SCALE, Labels

# Training examples that curvature and the inputs' Gram matrices are taken on, per task.
CURVATURE_EXAMPLES = 1000


@dataclass(frozen=True)
class CurvatureRequest(Request[dict[str, NDArray[np.float32]]]):
    """Diagonal Fisher of one model on one task's training examples, as a mean over them."""

    task: ClassVar[str] = "curvature"
    words: ClassVar[str] = "Curvature of a model"
    config: str
    model: str
    data: str
    data_fingerprint: str
    labels: Labels = "sampled"
    examples: int = CURVATURE_EXAMPLES
    seed: int = 0

    def encode(self, found: dict[str, NDArray[np.float32]]) -> Entry:
        """Return one array per tensor as they are stored."""
        arrays = {f"t{k}": value for k, value in enumerate(found.values())}
        return Entry(arrays, {"names": list(found)})

    def decode(self, entry: Entry) -> dict[str, NDArray[np.float32]]:
        """Return one array per tensor."""
        return {name: entry.arrays[f"t{k}"] for k, name in enumerate(entry.meta["names"])}


@dataclass(frozen=True)
class Moments:
    """Adam's second moments in the checkpoints, in place of curvature from examples.

    Attributes:
        models: Fingerprint of every model's.
        base: Fingerprint of the base's; empty where there is none.
        scale: What they are multiplied by: training examples times examples in a batch.
    """

    models: tuple[str, ...]
    base: str = ""
    scale: float = MOMENT_SCALE

    def of(self, members: tuple[int, ...]) -> Moments:
        """Return the moments of some models only."""
        return replace(self, models=tuple(self.models[k] for k in members))

    def without_base(self) -> Moments:
        """Return the moments without the base's."""
        return replace(self, base="")
