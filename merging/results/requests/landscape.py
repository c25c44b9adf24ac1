"""What can be asked of the landscape: curves between models, and surfaces through them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from merging.results.compute.entry import Entry
from merging.results.requests.alignment import AlignmentRequest
from merging.results.requests.curve_pieces import (
    curve_entry,
    interleaved,
    joined_curve,
    read_curve,
)
from merging.results.requests.path import Corner, PathRequest, needs_of
from merging.results.requests.request import Request, Split, Subject, digest
from merging.results.requests.wire import flat_entry, flat_record
from merging.schema.cards.landscape import LEVELS, PIECE_POINTS, Statistics
from merging.schema.cards.titles import NAIVE, method_words
from merging.schema.records.curve import Curve
from merging.schema.records.surface import (
    PlanePath,
    PlanePoint,
    Surface,
    SurfaceModels,
    SurfacePoints,
)

# Training examples that stand for the training split on screens, and for RESET.
SHOWN_EXAMPLES = 1000
# Training examples for REPAIR and RESCALE, which hold three models' units in memory in turn, and
# compare them on the same examples, so that most of the noise of fewer cancels.
CORRECTION_EXAMPLES = 500
_LAM_PIECES = 5


@dataclass(frozen=True)
class CurveRequest(Request[Curve]):
    """Loss and accuracy along the line from A to B, or to the aligned B."""

    task: ClassVar[str] = "curve"
    subject: Subject
    alignment: AlignmentRequest | None = None
    split: Split = "test"
    statistics: Statistics = "interpolated"
    lams: int = 25
    overshoot: float = 0.0

    @property
    def title(self) -> str:
        """What a person reads while it is computed."""
        who = method_words(NAIVE if self.alignment is None else self.alignment.method)
        return f"Loss along the line ({who}, {self.split})"

    def needs(self) -> tuple[Request[Any], ...]:
        """Return the permutation."""
        return () if self.alignment is None else (self.alignment,)

    def positions(self) -> list[float]:
        """Return all positions on the line, ascending."""
        extra = round(self.overshoot * (self.lams - 1))
        return [k / (self.lams - 1) for k in range(-extra, self.lams + extra)]

    def parts(self) -> list[dict[str, Any]]:
        """Return interleaved positions, so that the first piece already spans the line."""
        chunks = interleaved(self.positions(), _LAM_PIECES + 1, _LAM_PIECES - 1)
        return [{"positions": chunk} for chunk in chunks]

    def encode(self, found: Curve) -> Entry:
        """Return the curve through a piece's positions as it is stored."""
        return curve_entry(found)

    def decode(self, entry: Entry) -> Curve:
        """Return the curve through a piece's positions."""
        return read_curve(entry)

    def join(self, found: list[Curve]) -> Curve:
        """Return the curve through the positions that are there."""
        return joined_curve(found)


@dataclass(frozen=True)
class SurfaceRequest(Request[Surface]):
    """Loss and accuracy on a plane through weight space, on nested grids.

    Attributes:
        points: What spans the plane: `"a"`, `"b"`, an alignment for the aligned B, or a trained
            path for its bend; three of them, or one for filter-normalized random directions around
            it.
        shown: Further models to draw, projected on the plane. Paths are drawn whole.
        level: Index of the finest grid: 9, 17, 33 or 65 points per side.
        margin: Around the models, as a share of the window. Where a bend is the last point, along
            the line only: the window is then a strip that is about as high as the bend asks for.
    """

    task: ClassVar[str] = "surface"
    subject: Subject
    points: tuple[Corner, ...]
    shown: tuple[Corner, ...] = ()
    level: int = 2
    split: Split = "test"
    statistics: Literal["interpolated", "reset"] = "interpolated"
    margin: float = 0.25
    seed: int = 0

    @property
    def title(self) -> str:
        """What a person reads while it is computed."""
        side = LEVELS[self.level]
        aligned = [p.title.lower() for p in self.points if isinstance(p, AlignmentRequest)]
        aligned += ["with the path" for p in self.points if isinstance(p, PathRequest)]
        who = f" ({', '.join(aligned)})" if aligned else ""
        return f"Loss surface{who}, {side} × {side}"

    def needs(self) -> tuple[Request[Any], ...]:
        """Return the permutations of the aligned models, and the paths."""
        return needs_of((*self.points, *self.shown))

    def parts(self) -> list[dict[str, Any]]:
        """Return runs of points that are new on their level, coarse levels first."""
        parts: list[dict[str, Any]] = [{"models": True}]
        for level in range(self.level + 1):
            fresh = np.ones((LEVELS[level],) * 2, dtype=bool)
            if level:
                fresh[::2, ::2] = False
            count = int(fresh.sum())
            parts += [
                {"level": level, "start": start, "stop": min(start + PIECE_POINTS, count)}
                for start in range(0, count, PIECE_POINTS)
            ]
        return parts

    def piece_key(self, part: Mapping[str, Any]) -> str:
        """Return the key of a piece.

        Finer requests share the pieces of coarser ones; what is drawn on top does not matter.
        """
        shared = {k: v for k, v in self.payload.items() if k != "level"}
        if "level" in part:
            shared.pop("shown")
        return digest({**shared, **part})

    def shows(self, found: list[SurfaceModels | SurfacePoints]) -> bool:
        """Return whether any point is there."""
        return any(isinstance(piece, SurfacePoints) for piece in found)

    def encode(self, found: SurfaceModels | SurfacePoints) -> Entry:
        """Return a piece as it is stored: the models on the plane, or some points of the grid."""
        if isinstance(found, SurfacePoints):
            return flat_entry(found)
        points = [asdict(point) for point in found.points]
        paths = [
            {
                "kind": path.kind,
                "places": np.stack([path.x, path.y, path.residual]).tolist(),
            }
            for path in found.paths
        ]
        # Without a path the entry is what it was before there were any: packs are still right.
        return Entry({}, {"points": points, **({"paths": paths} if paths else {})})

    def decode(self, entry: Entry) -> SurfaceModels | SurfacePoints:
        """Return a piece: the models on the plane, or some points of the grid."""
        if "level" in entry.meta:
            return flat_record(SurfacePoints, entry)
        points = tuple(PlanePoint(**point) for point in entry.meta["points"])
        return SurfaceModels(points, tuple(map(_plane_path, entry.meta.get("paths", ()))))

    def join(self, found: list[SurfaceModels | SurfacePoints]) -> Surface:
        """Return the surface with the points that are there."""
        n = LEVELS[self.level]
        grids = np.full((3, n, n), np.nan)
        evaluated = np.zeros((n, n), dtype=bool)
        models = SurfaceModels()
        for piece in found:
            if isinstance(piece, SurfaceModels):
                models = piece
                continue
            window = piece
            rows, columns = piece.cells * 2 ** (self.level - piece.level)
            grids[:, rows, columns] = piece.values
            evaluated[rows, columns] = True
        return Surface(
            x=np.linspace(*window.x, n),
            y=np.linspace(*window.y, n),
            loss=grids[0],
            accuracy=grids[1],
            standard_error=grids[2],
            evaluated=evaluated,
            points=models.points,
            scale=window.scale,
            split=self.split,
            examples=window.examples,
            statistics=window.statistics,
            paths=models.paths,
        )


def _plane_path(path: Mapping[str, Any]) -> PlanePath:
    x, y, residual = np.array(path["places"], dtype=np.float64)
    return PlanePath(kind=path["kind"], x=x, y=y, residual=residual)
