"""What can be asked of the models themselves: symmetry, end points, what fits, uploads."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import ClassVar

from merging.results.compute.entry import Entry
from merging.results.requests.request import Request, Subject, added
from merging.results.requests.wire import flat_entry, flat_record, row_records, rows_entry
from merging.schema.records.diagnosis import Diagnosis, EndPoint, Forecast
from merging.schema.records.symmetry import FrozenAxis, GroupCertificate, SymmetrySummary
from merging.schema.records.tupled import tupled


@dataclass(frozen=True)
class SymmetryRequest(Request[SymmetrySummary]):
    """The permutation groups of an architecture, certified: the derived ones, or chosen ones."""

    task: ClassVar[str] = "symmetry"
    quick: ClassVar[bool] = True
    words: ClassVar[str] = "Finding the permutation symmetries"
    config: str
    spec: str = added("")

    def encode(self, found: SymmetrySummary) -> Entry:
        """Return the summary as it is stored; the spec lies beside it."""
        return Entry({}, {"summary": {**asdict(found), "spec": "{}"}, "spec": found.spec})

    def decode(self, entry: Entry) -> SymmetrySummary:
        """Return the summary."""
        meta = dict(entry.meta["summary"])
        meta["groups"] = tuple(GroupCertificate(**tupled(group)) for group in meta["groups"])
        meta["frozen"] = tuple(FrozenAxis(**axis) for axis in meta["frozen"])
        meta["unknown_operators"] = tuple(meta["unknown_operators"])
        meta["spec"] = entry.meta["spec"]
        return SymmetrySummary(**meta)


@dataclass(frozen=True)
class ChosenSpec:
    """A permutation spec that a person chose, proven and kept.

    Attributes:
        fingerprint: What `Subject.spec` takes; empty if it is the derived spec.
        groups: Number of groups.
        units: Units in them.
    """

    fingerprint: str
    groups: int
    units: int


@dataclass(frozen=True)
class SpecRequest(Request[ChosenSpec]):
    """Prove a spec that was uploaded (the derived one, if none was), without some groups."""

    task: ClassVar[str] = "spec"
    quick: ClassVar[bool] = True
    words: ClassVar[str] = "Proving the permutation spec"
    config: str
    upload: str = ""
    frozen: tuple[str, ...] = ()

    def encode(self, found: ChosenSpec) -> Entry:
        """Return what was kept, as it is stored."""
        return flat_entry(found)

    def decode(self, entry: Entry) -> ChosenSpec:
        """Return what was kept."""
        return flat_record(ChosenSpec, entry)


@dataclass(frozen=True)
class EndPointsRequest(Request[dict[str, list[EndPoint]]]):
    """Loss and accuracy of both models on both splits."""

    task: ClassVar[str] = "end points"
    words: ClassVar[str] = "Evaluating both models"
    subject: Subject

    def encode(self, found: dict[str, list[EndPoint]]) -> Entry:
        """Return one list per model as they are stored."""
        return Entry({}, {model: [asdict(row) for row in rows] for model, rows in found.items()})

    def decode(self, entry: Entry) -> dict[str, list[EndPoint]]:
        """Return one list per model, `"a"` and `"b"`."""
        return {model: [EndPoint(**row) for row in entry.meta[model]] for model in ("a", "b")}


@dataclass(frozen=True)
class DiagnosisRequest(Request[Diagnosis]):
    """Two models examined, a planted permutation looked for, and chance for comparison."""

    task: ClassVar[str] = "diagnosis"
    words: ClassVar[str] = "Examining the two models"
    subject: Subject

    def encode(self, found: Diagnosis) -> Entry:
        """Return what was found, as it is stored."""
        return flat_entry(found)

    def decode(self, entry: Entry) -> Diagnosis:
        """Return what was found."""
        return flat_record(Diagnosis, entry)


@dataclass(frozen=True)
class ForecastRequest(Request[Forecast]):
    """What matching two models will take, and what is unusual about their numbers."""

    task: ClassVar[str] = "forecast"
    quick: ClassVar[bool] = True
    words: ClassVar[str] = "Looking at the two models"
    subject: Subject

    def encode(self, found: Forecast) -> Entry:
        """Return the forecast, as it is stored."""
        return flat_entry(found)

    def decode(self, entry: Entry) -> Forecast:
        """Return the forecast."""
        return flat_record(Forecast, entry)


@dataclass(frozen=True)
class UploadedCheckpoint:
    """An uploaded checkpoint that was read, checked and kept.

    Attributes:
        name: The name that it came with; only ever shown.
        fingerprint: SHA-256 of its tensors.
        config: Canonical JSON of the bundled architecture that it belongs to.
        tensors: Number of tensors.
        parameters: Number of numbers in them.
        notes: What was done on reading (prefixes stripped, say).
        prefix: What was cut off all names.
        keeps_statistics: Whether running statistics (BatchNorm) are among its tensors.
        second_moment: Fingerprint of Adam's second moment; empty if it is not there.
        no_second_moment: Why it is not, where there is an optimizer's state; else empty.
    """

    name: str
    fingerprint: str
    config: str
    tensors: int
    parameters: int
    notes: tuple[str, ...]
    prefix: str = ""  # results that were kept before this was lack it
    keeps_statistics: bool = False  # and this
    second_moment: str = ""  # and this
    no_second_moment: str = ""  # and this


@dataclass(frozen=True)
class CheckpointRequest(Request[UploadedCheckpoint]):
    """Read a checkpoint whose bytes are in the store under `upload`, or that lies on the server.

    `architecture` is a config or a name of a model package, for weights that do not say; `file`
    the identity of a file in the server's folder.
    """

    task: ClassVar[str] = "read checkpoint"
    quick: ClassVar[bool] = True
    upload: str
    name: str
    architecture: str = ""
    file: str = added("")

    @property
    def title(self) -> str:
        """What a person reads while it is computed."""
        return f"Reading {self.name}"

    def encode(self, found: UploadedCheckpoint) -> Entry:
        """Return what was read, as it is stored."""
        return flat_entry(found)

    def decode(self, entry: Entry) -> UploadedCheckpoint:
        """Return what was read."""
        return flat_record(UploadedCheckpoint, entry)


@dataclass(frozen=True)
class UploadedData:
    """Uploaded examples that were read, checked and kept."""

    name: str
    fingerprint: str
    examples: int
    classes: int
    notes: tuple[str, ...]
    kind: str = "classification"  # results that were kept before there were others lack it


@dataclass(frozen=True)
class DataRequest(Request[UploadedData]):
    """Read examples for an architecture: uploaded, from the server's folder, or of its function."""

    task: ClassVar[str] = "read data"
    quick: ClassVar[bool] = True
    upload: str
    name: str
    config: str
    file: str = added("")
    function: str = added("")

    @property
    def title(self) -> str:
        """What a person reads while it is computed."""
        return f"Reading {self.name}"

    def encode(self, found: UploadedData) -> Entry:
        """Return what was read, as it is stored."""
        return flat_entry(found)

    def decode(self, entry: Entry) -> UploadedData:
        """Return what was read."""
        return flat_record(UploadedData, entry)


class Verdict(StrEnum):
    """How one tensor of two checkpoints compares."""

    FITS = "fits"
    OTHER_PRECISION = "fits, in another precision"
    EQUAL = "equal values"
    DOES_NOT_FIT = "does not fit"


@dataclass(frozen=True)
class TensorRow:
    """One tensor of two checkpoints, side by side."""

    name: str
    shape_a: str
    shape_b: str
    verdict: Verdict


@dataclass(frozen=True)
class FitRequest(Request[list[TensorRow]]):
    """What fits and what does not between two models."""

    task: ClassVar[str] = "fit"
    quick: ClassVar[bool] = True
    words: ClassVar[str] = "Comparing the checkpoints"
    model_a: str
    model_b: str

    def encode(self, found: list[TensorRow]) -> Entry:
        """Return one row per tensor as they are stored."""
        return rows_entry(found)

    def decode(self, entry: Entry) -> list[TensorRow]:
        """Return one row per tensor; what does not fit comes first."""
        rows = row_records(TensorRow, entry)
        return [replace(row, verdict=Verdict(row.verdict)) for row in rows]
