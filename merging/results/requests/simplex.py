"""What can be asked of regions around models: simplexes, and posterior samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import comb
from typing import Any, ClassVar, Literal

import numpy as np

from merging.results.compute.entry import Entry
from merging.results.requests.path import Corner, corner_names, needs_of
from merging.results.requests.request import Request, Split, Subject, digest
from merging.schema.cards.landscape import PIECE_POINTS, SIMPLEX_LEVELS
from merging.schema.records.simplex import SimplexLoss


@dataclass(frozen=True)
class SimplexRequest(Request[SimplexLoss]):
    """Loss and accuracy of all weighted means of three or more models around one pair.

    Attributes:
        points: The corners: `"a"`, `"b"`, an alignment for the aligned B, a path for its bend.
        level: Index of the finest grid: 4, 8, 16 or 32 steps along an edge.
    """

    task: ClassVar[str] = "simplex"
    subject: Subject
    points: tuple[Corner, ...]
    level: int = 1
    split: Split = "test"
    statistics: Literal["interpolated", "reset"] = "interpolated"

    @property
    def title(self) -> str:
        """What a person reads while it is computed."""
        return f"Loss of mixtures of {len(self.points)} models"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the corners, all different."""
        return corner_names(self.points)

    def needs(self) -> tuple[Request[Any], ...]:
        """Return the alignments and paths of the corners."""
        return needs_of(self.points)

    def parts(self) -> list[dict[str, Any]]:
        """Return runs of points, coarse levels first."""
        return simplex_parts(self.level, len(self.points))

    def piece_key(self, part: Mapping[str, Any]) -> str:
        """Return the key of a piece; finer requests share the pieces of coarser ones."""
        return simplex_piece_key(self, part)

    def encode(self, found: SimplexLoss) -> Entry:
        """Return the losses of a piece as they are stored."""
        values = np.stack([found.loss, found.accuracy, found.standard_error])
        names = ("split", "examples", "statistics")
        meta = {name: getattr(found, name) for name in names}
        return Entry({"weights": found.weights, "values": values}, meta)

    def decode(self, entry: Entry) -> SimplexLoss:
        """Return the losses of a piece."""
        loss, accuracy, error = entry.arrays["values"]
        return SimplexLoss(
            names=self.names,
            weights=entry.arrays["weights"],
            loss=loss,
            accuracy=accuracy,
            standard_error=error,
            resolution=SIMPLEX_LEVELS[self.level],
            **entry.meta,
        )

    def join(self, found: list[SimplexLoss]) -> SimplexLoss:
        """Return the losses that are there."""
        names = ("weights", "loss", "accuracy", "standard_error")
        arrays: dict[str, Any] = {
            name: np.concatenate([getattr(piece, name) for piece in found]) for name in names
        }
        return replace(found[0], **arrays)


def simplex_parts(level: int, corners: int) -> list[dict[str, Any]]:
    """Return how a simplex is cut, whatever its corners are.

    Args:
        level: Index into `SIMPLEX_LEVELS`.
        corners: Number of models.

    Returns:
        Runs of the points that are new on their level, coarse levels first.
    """
    parts, before = [], 0
    for k in range(level + 1):
        every = comb(SIMPLEX_LEVELS[k] + corners - 1, corners - 1)
        fresh = every - before
        parts += [
            {"level": k, "start": start, "stop": min(start + PIECE_POINTS, fresh)}
            for start in range(0, fresh, PIECE_POINTS)
        ]
        before = every
    return parts


def simplex_piece_key(request: Request[Any], part: Mapping[str, Any]) -> str:
    """Return the key of a piece of a request with a `level`: the same whatever level is asked."""
    return digest({**{k: v for k, v in request.payload.items() if k != "level"}, **part})
