"""What can be asked of trained paths: the path, and loss and accuracy along it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal

from merging.results.compute.entry import Entry
from merging.results.requests.alignment import AlignmentRequest
from merging.results.requests.curve_pieces import curve_entry, interleaved, joined_curve, read_curve
from merging.results.requests.request import Request, Split, Subject, canonical
from merging.schema.cards.matching import read_options
from merging.schema.cards.paths import PATH_CARDS, find_path_card
from merging.schema.cards.titles import NAIVE, method_words
from merging.schema.records.curve import Curve
from merging.schema.records.trained_path import StoredPath, TrainedPath
from merging.schema.records.tupled import tupled

# Positions along a path: as many as on a line, so that barriers compare.
PATH_POSITIONS = 25
_PATH_PIECES = 3


@dataclass(frozen=True)
class PathRequest(Request[TrainedPath]):
    """A trained path from A to B, or to the aligned B; among the points of a plane, its bend."""

    task: ClassVar[str] = "path"
    subject: Subject
    alignment: AlignmentRequest | None = None
    kind: str = "bezier"
    options: str = "{}"
    seed: int = 0

    @property
    def end(self) -> Literal["b"] | AlignmentRequest:
        """Where the path ends."""
        return self.alignment or "b"

    @property
    def title(self) -> str:
        """What a person reads while it is computed."""
        who = method_words(NAIVE if self.alignment is None else self.alignment.method)
        return f"Training a path ({PATH_CARDS[self.kind].title}, {who})"

    def needs(self) -> tuple[Request[Any], ...]:
        """Return the permutation."""
        return () if self.alignment is None else (self.alignment,)

    def encode(self, found: StoredPath) -> Entry:
        """Return the path as it is stored; while it is trained, without its weights."""
        meta: dict[str, Any] = {"path": asdict(found.path)}
        if found.bends is None:
            return Entry({}, meta)
        return Entry({"bends": found.bends}, {**meta, "knots": found.knots})

    def decode(self, entry: Entry) -> StoredPath:
        """Return the path, with its weights if they are there."""
        return StoredPath(
            path=_trained_path(entry.meta["path"]),
            bends=entry.arrays.get("bends"),
            knots=tuple(entry.meta.get("knots", ())),
        )

    def join(self, found: list[StoredPath]) -> TrainedPath:
        """Return the path, without its weights."""
        return found[0].path


def path(
    subject: Subject,
    alignment: AlignmentRequest | None,
    kind: str,
    options: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
) -> PathRequest:
    """Ask for a trained path; options that are left out have their defaults.

    Args:
        subject: The models and their data.
        alignment: How B is aligned first, if at all.
        kind: `"bezier"`, `"chain"` or `"neb"`.
        options: Its options by name.
        seed: The seed.

    Returns:
        The request; equal options give equal requests.

    Raises:
        UnknownNameError: If there is no such kind or option.
    """
    chosen = read_options(find_path_card(kind), options)
    return PathRequest(
        subject=subject,
        alignment=alignment,
        kind=kind,
        options=canonical(asdict(chosen)),
        seed=seed,
    )


@dataclass(frozen=True, eq=False)
class PathCurve:
    """A trained path, and loss and accuracy along it; `curve.lams` are positions on the path."""

    path: TrainedPath
    curve: Curve


@dataclass(frozen=True)
class PathCurveRequest(Request[PathCurve]):
    """Loss and accuracy along a trained path."""

    task: ClassVar[str] = "path curve"
    subject: Subject
    path: PathRequest
    split: Split = "test"
    statistics: Literal["interpolated", "reset"] = "interpolated"

    @property
    def title(self) -> str:
        """What a person reads while it is computed."""
        who = method_words(NAIVE if self.alignment is None else self.alignment.method)
        return f"Loss along the path ({PATH_CARDS[self.path.kind].title}, {who}, {self.split})"

    @property
    def alignment(self) -> AlignmentRequest | None:
        """How B was aligned."""
        return self.path.alignment

    def needs(self) -> tuple[Request[Any], ...]:
        """Return the path."""
        return (self.path,)

    def parts(self) -> list[dict[str, Any]]:
        """Return interleaved positions, so that the first piece already spans the path."""
        every = [k / (PATH_POSITIONS - 1) for k in range(PATH_POSITIONS)]
        chunks = interleaved(every, _PATH_PIECES, _PATH_PIECES - 1)
        return [{"positions": chunk} for chunk in chunks]

    def encode(self, found: PathCurve) -> Entry:
        """Return the path, and the curve through a piece's positions, as they are stored."""
        entry = curve_entry(found.curve)
        return Entry(entry.arrays, {**entry.meta, "path": asdict(found.path)})

    def decode(self, entry: Entry) -> PathCurve:
        """Return the path, and the curve through a piece's positions."""
        curve, path = read_curve(entry), _trained_path(entry.meta["path"])
        return PathCurve(replace(path, loss_unit=curve.loss_unit), curve)

    def join(self, found: list[PathCurve]) -> PathCurve:
        """Return the curve through the positions that are there."""
        return PathCurve(found[0].path, joined_curve([piece.curve for piece in found]))


def _trained_path(meta: Mapping[str, Any]) -> TrainedPath:
    return TrainedPath(**tupled(meta))


Corner = Literal["a", "b"] | AlignmentRequest | PathRequest


def corner_names(points: Sequence[Corner]) -> tuple[str, ...]:
    """Return what screens call the models of a plane or a simplex, all different.

    An aligned B has its method's name; a bend is `bend`, and with its kind and method where there
    are several.
    """
    plain = [_corner_name(point) for point in points]
    return tuple(
        _full_name(point) if plain.count(name) > 1 and isinstance(point, PathRequest) else name
        for point, name in zip(points, plain, strict=True)
    )


def _corner_name(point: Corner) -> str:
    if isinstance(point, str):
        return point.upper()
    return point.method if isinstance(point, AlignmentRequest) else "bend"


def _full_name(point: PathRequest) -> str:
    return f"bend {point.kind} {NAIVE if point.alignment is None else point.alignment.method}"


def needs_of(points: Sequence[Corner]) -> tuple[Request[Any], ...]:
    """Return what must be there before the models of these points are, each once."""
    return tuple({p.key: p for p in points if not isinstance(p, str)}.values())
