"""What can be asked for: one frozen record per kind of result, its key, and its pieces.

A request says what is computed from what, by fingerprint, and nothing else; the SHA-256 of its
canonical JSON is its key. This module needs no torch: the interface process makes requests and
reads results with it, and `merging.tasks` computes the pieces in a worker.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np

from merging.cards import read_card
from merging.errors import UnknownNameError
from merging.jobs import Job, Piece
from merging.methods import find_card, read_options
from merging.records import (
    Alignment,
    Curve,
    EndPoint,
    FrozenAxis,
    GroupCertificate,
    GroupUnits,
    LayerRow,
    PlanePoint,
    Surface,
    SymmetrySummary,
)
from merging.store import Entry, Store

# Part of every key: raise it when the meaning of a result changes.
SCHEMA = 1
RUNNER = "merging.tasks:run_piece"

Split = Literal["train", "test"]
Statistics = Literal["interpolated", "reset", "repair", "rescale"]
Result = TypeVar("Result")

# Training examples that stand for the training split on screens, and for statistics.
SHOWN_EXAMPLES = 1000
# Test examples behind the layer-wise figures: two curves per layer are many.
LAYER_EXAMPLES = 500
# Points of a surface in one piece.
_PIECE_POINTS = 52
_LAM_PIECES = 5
_LEVEL_SIDES = (9, 17, 33, 65)


@dataclass(frozen=True)
class Subject:
    """The two models that are looked at, and their data, by fingerprint.

    Attributes:
        config: Canonical JSON of the architecture and its sizes.
        model_a: Fingerprint of model A.
        model_b: Fingerprint of model B.
        data: Name of a bundled data set, or the fingerprint of a brought one.
        data_fingerprint: Fingerprint of the data.
    """

    config: str
    model_a: str
    model_b: str
    data: str
    data_fingerprint: str


def bundled_subject(name: str) -> Subject:
    """The subject of a bundled pair.

    Raises:
        UnknownNameError: If there is no such pair.
    """
    card = read_card(name)
    return Subject(
        canonical(card["config"]),
        card["fingerprint_a"],
        card["fingerprint_b"],
        card["data"],
        card["data_fingerprint"],
    )


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True)
class Request(Generic[Result]):
    """Something that can be asked for; one child per kind of result."""

    task: ClassVar[str]
    words: ClassVar[str] = ""

    @property
    def payload(self) -> dict[str, Any]:
        """The request as JSON values."""
        return {"task": self.task, **_fields(self)}

    @property
    def key(self) -> str:
        """SHA-256 of the canonical JSON: where the result is kept."""
        return _digest(self.payload)

    @property
    def title(self) -> str:
        """What a person reads while it is computed."""
        return self.words or self.task

    def needs(self) -> tuple[Request[Any], ...]:
        """Requests whose results must be there first."""
        return ()

    def parts(self) -> list[dict[str, Any]]:
        """How the request is cut: what each piece adds to the payload, most important first."""
        return [{}]

    def job(self) -> Job:
        """The request as the compute service takes it."""
        pieces = tuple(
            Piece(self.piece_key(part), canonical({"request": self.payload, "part": part}))
            for part in self.parts()
        )
        needs = tuple(request.job() for request in self.needs())
        return Job(_digest({"job": self.payload}), self.title, pieces, RUNNER, needs)

    def piece_key(self, part: Mapping[str, Any]) -> str:
        """Where the result of one piece is kept."""
        return _digest({**self.payload, **part})

    def entries(self, store: Store) -> list[Entry | None]:
        """What is stored of every piece."""
        keys = [self.piece_key(part) for part in self.parts()]
        present = store.has(keys)
        return [store.get(key) if key in present else None for key in keys]

    def read(self, store: Store) -> Result | None:
        """The result, or None while a piece is missing."""
        found = self.entries(store)
        whole = [entry for entry in found if entry is not None]
        return self.decode(whole) if len(whole) == len(found) else None

    def read_partial(self, store: Store) -> Result | None:
        """What is there so far, if that can be shown already."""
        keys = [self.piece_key(part) for part in self.parts()]
        if len(keys) > 1:
            found = [entry for entry in self.entries(store) if entry is not None]
            return self.decode(found) if self.shows(found) else None
        entry = store.get_partial(keys[0])
        return self.decode([entry]) if entry is not None else None

    def shows(self, entries: list[Entry]) -> bool:
        """Whether some pieces are enough to show something."""
        return bool(entries)

    def decode(self, entries: list[Entry]) -> Result:
        """The result from its stored pieces."""
        raise NotImplementedError


@dataclass(frozen=True)
class SymmetryRequest(Request[SymmetrySummary]):
    """The permutation groups of an architecture, certified."""

    task: ClassVar[str] = "symmetry"
    words: ClassVar[str] = "Finding the permutation symmetries"
    config: str

    def decode(self, entries: list[Entry]) -> SymmetrySummary:
        """The summary."""
        meta = dict(entries[0].meta["summary"])
        meta["groups"] = tuple(GroupCertificate(**_tupled(group)) for group in meta["groups"])
        meta["frozen"] = tuple(FrozenAxis(**axis) for axis in meta["frozen"])
        meta["unknown_operators"] = tuple(meta["unknown_operators"])
        return SymmetrySummary(**meta)


@dataclass(frozen=True)
class EndPointsRequest(Request[dict[str, list[EndPoint]]]):
    """Loss and accuracy of both models on both splits."""

    task: ClassVar[str] = "end points"
    words: ClassVar[str] = "Evaluating both models"
    subject: Subject

    def decode(self, entries: list[Entry]) -> dict[str, list[EndPoint]]:
        """One list per model, `"a"` and `"b"`."""
        return {model: [EndPoint(**row) for row in entries[0].meta[model]] for model in ("a", "b")}


@dataclass(frozen=True)
class AlignmentRequest(Request[Alignment]):
    """A permutation of model B."""

    task: ClassVar[str] = "alignment"
    subject: Subject
    method: str
    options: str = "{}"
    seed: int = 0

    @property
    def title(self) -> str:
        """What a person reads while it is computed."""
        return find_card(self.method).title

    def decode(self, entries: list[Entry]) -> Alignment:
        """The alignment."""
        arrays, meta = entries[0].arrays, dict(entries[0].meta)
        groups = meta.pop("groups")
        meta["permutations"] = {group: arrays[f"p{k}"] for k, group in enumerate(groups)}
        for name in ("objective", "restarts"):
            meta[name] = tuple(meta[name])
        return Alignment(**meta)


def alignment(
    subject: Subject, method: str, options: Mapping[str, Any] | None = None, *, seed: int = 0
) -> AlignmentRequest:
    """Ask for a permutation; options that are left out have their defaults.

    Args:
        subject: The models and their data.
        method: The method's name.
        options: Its options by name.
        seed: The seed.

    Returns:
        The request; equal options give equal requests.

    Raises:
        UnknownNameError: If there is no such method or option.
    """
    chosen = read_options(find_card(method), options)
    return AlignmentRequest(subject, method, canonical(asdict(chosen)), seed)


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
        who = "naive" if self.alignment is None else self.alignment.title.lower()
        return f"Loss along the line ({who}, {self.split})"

    def needs(self) -> tuple[Request[Any], ...]:
        """The permutation."""
        return () if self.alignment is None else (self.alignment,)

    def positions(self) -> list[float]:
        """All positions on the line, ascending."""
        extra = round(self.overshoot * (self.lams - 1))
        return [k / (self.lams - 1) for k in range(-extra, self.lams + extra)]

    def parts(self) -> list[dict[str, Any]]:
        """Interleaved positions, so that the first piece already spans the line."""
        positions = self.positions()
        first = sorted({0, len(positions) - 1, *range(0, len(positions), _LAM_PIECES + 1)})
        rest = [k for k in range(len(positions)) if k not in first]
        chunks = [first, *(rest[k :: _LAM_PIECES - 1] for k in range(_LAM_PIECES - 1))]
        return [{"positions": [positions[k] for k in chunk]} for chunk in chunks if chunk]

    def decode(self, entries: list[Entry]) -> Curve:
        """The curve through the positions that are there."""
        stacked = {
            name: np.concatenate([entry.arrays[name] for entry in entries])
            for name in ("lams", "losses", "correct")
        }
        order = np.argsort(stacked["lams"])
        losses, correct = stacked["losses"][order], stacked["correct"][order]
        meta = entries[0].meta
        return Curve(
            stacked["lams"][order],
            losses.mean(1, dtype=np.float64),
            correct.mean(1, dtype=np.float64),
            losses,
            correct,
            meta["statistics"],
            meta["split"],
        )


@dataclass(frozen=True)
class SurfaceRequest(Request[Surface]):
    """Loss and accuracy on a plane through weight space, on nested grids.

    Attributes:
        points: What spans the plane: `"a"`, `"b"`, or an alignment for the aligned B; three of
            them, or one for filter-normalized random directions around it.
        shown: Further models to draw, projected on the plane.
        level: Index of the finest grid: 9, 17, 33 or 65 points per side.
    """

    task: ClassVar[str] = "surface"
    subject: Subject
    points: tuple[Literal["a", "b"] | AlignmentRequest, ...]
    shown: tuple[Literal["a", "b"] | AlignmentRequest, ...] = ()
    level: int = 2
    split: Split = "test"
    statistics: Literal["interpolated", "reset"] = "interpolated"
    margin: float = 0.25
    seed: int = 0

    @property
    def title(self) -> str:
        """What a person reads while it is computed."""
        side = _LEVEL_SIDES[self.level]
        return f"Loss surface, {side} × {side}"

    def needs(self) -> tuple[Request[Any], ...]:
        """The permutations of the aligned models."""
        every = (*self.points, *self.shown)
        return tuple({p.key: p for p in every if isinstance(p, AlignmentRequest)}.values())

    def parts(self) -> list[dict[str, Any]]:
        """Runs of points that are new on their level, coarse levels first."""
        parts: list[dict[str, Any]] = [{"models": True}]
        for level in range(self.level + 1):
            fresh = np.ones((_LEVEL_SIDES[level],) * 2, dtype=bool)
            if level:
                fresh[::2, ::2] = False
            count = int(fresh.sum())
            parts += [
                {"level": level, "start": start, "stop": min(start + _PIECE_POINTS, count)}
                for start in range(0, count, _PIECE_POINTS)
            ]
        return parts

    def piece_key(self, part: Mapping[str, Any]) -> str:
        """Finer requests share the pieces of coarser ones; what is drawn on top matters not."""
        shared = {k: v for k, v in self.payload.items() if k != "level"}
        if "level" in part:
            shared.pop("shown")
        return _digest({**shared, **part})

    def shows(self, entries: list[Entry]) -> bool:
        """Whether any point is there."""
        return any("level" in entry.meta for entry in entries)

    def decode(self, entries: list[Entry]) -> Surface:
        """The surface with the points that are there."""
        n = _LEVEL_SIDES[self.level]
        grids = np.full((3, n, n), np.nan)
        evaluated = np.zeros((n, n), dtype=bool)
        points: tuple[PlanePoint, ...] = ()
        meta: Mapping[str, Any] = entries[0].meta
        for entry in entries:
            if "points" in entry.meta:
                points = tuple(PlanePoint(**point) for point in entry.meta["points"])
                continue
            meta = entry.meta
            rows, columns = entry.arrays["cells"] * 2 ** (self.level - meta["level"])
            grids[:, rows, columns] = entry.arrays["values"]
            evaluated[rows, columns] = True
        return Surface(
            np.linspace(meta["x"][0], meta["x"][1], n),
            np.linspace(meta["y"][0], meta["y"][1], n),
            grids[0],
            grids[1],
            grids[2],
            evaluated,
            points,
            meta["scale"],
            self.split,
            meta["examples"],
            meta["statistics"],
        )


@dataclass(frozen=True)
class UnitsRequest(Request[list[GroupUnits]]):
    """How the units of every group are paired."""

    task: ClassVar[str] = "units"
    words: ClassVar[str] = "Comparing the units"
    subject: Subject
    alignment: AlignmentRequest

    def needs(self) -> tuple[Request[Any], ...]:
        """The permutation."""
        return (self.alignment,)

    def decode(self, entries: list[Entry]) -> list[GroupUnits]:
        """One record per group."""
        arrays = entries[0].arrays
        units = []
        for k, group in enumerate(entries[0].meta["groups"]):
            names = ("permutation", "before", "after", "matched", "margin")
            values: dict[str, Any] = {name: arrays[f"{name}{k}"] for name in names}
            units.append(GroupUnits(**{**_tupled(group), **values}))
        return units


@dataclass(frozen=True)
class LayersRequest(Request[list[LayerRow]]):
    """The two models layer by layer, before and after alignment."""

    task: ClassVar[str] = "layers"
    words: ClassVar[str] = "Comparing layer by layer"
    subject: Subject
    alignment: AlignmentRequest

    def needs(self) -> tuple[Request[Any], ...]:
        """The permutation."""
        return (self.alignment,)

    def decode(self, entries: list[Entry]) -> list[LayerRow]:
        """One row per layer."""
        return [LayerRow(**row) for row in entries[0].meta["rows"]]


@dataclass(frozen=True)
class Download:
    """A file to hand over."""

    name: str
    data: bytes
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExportRequest(Request[Download]):
    """The permutation (`.npz`), or the aligned or merged model (safetensors), as a file."""

    task: ClassVar[str] = "export"
    subject: Subject
    alignment: AlignmentRequest | None
    what: Literal["permutation", "aligned", "merged"]
    lam: float = 0.5
    statistics: Statistics = "interpolated"

    @property
    def title(self) -> str:
        """What a person reads while it is computed."""
        return f"Writing the {self.what} file"

    def needs(self) -> tuple[Request[Any], ...]:
        """The permutation."""
        return () if self.alignment is None else (self.alignment,)

    def decode(self, entries: list[Entry]) -> Download:
        """The file."""
        return _download(entries[0])


@dataclass(frozen=True)
class BroughtCheckpoint:
    """An uploaded checkpoint that was read, checked and kept.

    Attributes:
        name: The name that it came with; only ever shown.
        fingerprint: SHA-256 of its tensors.
        config: Canonical JSON of the bundled architecture that it belongs to.
        tensors: Number of tensors.
        parameters: Number of numbers in them.
        notes: What was done on reading (prefixes stripped, say).
    """

    name: str
    fingerprint: str
    config: str
    tensors: int
    parameters: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class CheckpointRequest(Request[BroughtCheckpoint]):
    """Read an uploaded checkpoint, whose bytes are in the store under `upload`."""

    task: ClassVar[str] = "read checkpoint"
    upload: str
    name: str

    @property
    def title(self) -> str:
        """What a person reads while it is computed."""
        return f"Reading {self.name}"

    def decode(self, entries: list[Entry]) -> BroughtCheckpoint:
        """What was read."""
        return BroughtCheckpoint(**_tupled(entries[0].meta))


@dataclass(frozen=True)
class BroughtData:
    """Uploaded examples that were read, checked and kept."""

    name: str
    fingerprint: str
    examples: int
    classes: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class DataRequest(Request[BroughtData]):
    """Read uploaded examples for an architecture."""

    task: ClassVar[str] = "read data"
    upload: str
    name: str
    config: str

    @property
    def title(self) -> str:
        """What a person reads while it is computed."""
        return f"Reading {self.name}"

    def decode(self, entries: list[Entry]) -> BroughtData:
        """What was read."""
        return BroughtData(**_tupled(entries[0].meta))


@dataclass(frozen=True)
class TensorRow:
    """One tensor of two checkpoints, side by side."""

    name: str
    shape_a: str
    shape_b: str
    verdict: str


@dataclass(frozen=True)
class FitRequest(Request[list[TensorRow]]):
    """What fits and what does not between two models."""

    task: ClassVar[str] = "fit"
    words: ClassVar[str] = "Comparing the checkpoints"
    model_a: str
    model_b: str

    def decode(self, entries: list[Entry]) -> list[TensorRow]:
        """One row per tensor; what does not fit comes first."""
        return [TensorRow(**row) for row in entries[0].meta["rows"]]


_KINDS: Mapping[str, type[Request[Any]]] = {
    kind.task: kind
    for kind in (
        SymmetryRequest,
        EndPointsRequest,
        AlignmentRequest,
        CurveRequest,
        SurfaceRequest,
        UnitsRequest,
        LayersRequest,
        ExportRequest,
        CheckpointRequest,
        DataRequest,
        FitRequest,
    )
}


def from_payload(payload: Mapping[str, Any]) -> Request[Any]:
    """The request that has this payload.

    Raises:
        UnknownNameError: If no kind of request has its task.
    """
    kind = _KINDS.get(payload["task"])
    if kind is None:
        raise UnknownNameError(f"unknown task {payload['task']!r}; choose from {', '.join(_KINDS)}")
    return kind(**{f.name: _value(payload[f.name], f.name) for f in fields(kind)})


def _value(value: Any, name: str) -> Any:
    if name == "subject":
        return Subject(**value)
    if isinstance(value, list):
        return tuple(_value(item, "") for item in value)
    return from_payload(value) if isinstance(value, dict) else value


def _fields(request: Request[Any]) -> dict[str, Any]:
    return {f.name: _plain(getattr(request, f.name)) for f in fields(request)}


def _plain(value: Any) -> Any:
    if isinstance(value, Request):
        return value.payload
    if isinstance(value, Subject):
        return asdict(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical({"schema": SCHEMA, "value": value}).encode()).hexdigest()


def _tupled(meta: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in meta.items()}


def _download(entry: Entry) -> Download:
    meta = entry.meta
    return Download(meta["name"], entry.arrays["data"].tobytes(), tuple(meta["notes"]))
