"""What can be asked of the models themselves: symmetry, end points, what fits, uploads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from merging.results.compute.entry import Entry
from merging.results.requests.request import Request, Subject, added, tupled
from merging.schema.records.diagnosis import Diagnosis, EndPoint, Forecast
from merging.schema.records.symmetry import FrozenAxis, GroupCertificate, SymmetrySummary


@dataclass(frozen=True)
class SymmetryRequest(Request[SymmetrySummary]):
    """The permutation groups of an architecture, certified: the derived ones, or chosen ones."""

    task: ClassVar[str] = "symmetry"
    quick: ClassVar[bool] = True
    words: ClassVar[str] = "Finding the permutation symmetries"
    config: str
    spec: str = added("")

    def decode(self, entries: list[Entry]) -> SymmetrySummary:
        """The summary."""
        meta = dict(entries[0].meta["summary"])
        meta["groups"] = tuple(GroupCertificate(**tupled(group)) for group in meta["groups"])
        meta["frozen"] = tuple(FrozenAxis(**axis) for axis in meta["frozen"])
        meta["unknown_operators"] = tuple(meta["unknown_operators"])
        meta["spec"] = entries[0].meta["spec"]
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

    def decode(self, entries: list[Entry]) -> ChosenSpec:
        """What was kept."""
        return ChosenSpec(**entries[0].meta)


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
class DiagnosisRequest(Request[Diagnosis]):
    """Two models examined, a planted permutation looked for, and chance for comparison."""

    task: ClassVar[str] = "diagnosis"
    words: ClassVar[str] = "Examining the two models"
    subject: Subject

    def decode(self, entries: list[Entry]) -> Diagnosis:
        """What was found."""
        return Diagnosis(**tupled(entries[0].meta))


@dataclass(frozen=True)
class ForecastRequest(Request[Forecast]):
    """What matching two models will take, and what is odd about their numbers."""

    task: ClassVar[str] = "forecast"
    quick: ClassVar[bool] = True
    words: ClassVar[str] = "Looking at the two models"
    subject: Subject

    def decode(self, entries: list[Entry]) -> Forecast:
        """The forecast."""
        return Forecast(**tupled(entries[0].meta))


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
        prefix: What was cut off all names.
        keeps_statistics: Whether running statistics (BatchNorm) are among its tensors.
        second_moment: Fingerprint of Adam's second moment; empty if it is not there.
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


@dataclass(frozen=True)
class CheckpointRequest(Request[BroughtCheckpoint]):
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

    def decode(self, entries: list[Entry]) -> BroughtCheckpoint:
        """What was read."""
        return BroughtCheckpoint(**tupled(entries[0].meta))


@dataclass(frozen=True)
class BroughtData:
    """Uploaded examples that were read, checked and kept."""

    name: str
    fingerprint: str
    examples: int
    classes: int
    notes: tuple[str, ...]
    kind: str = "classification"  # results that were kept before there were others lack it


@dataclass(frozen=True)
class DataRequest(Request[BroughtData]):
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

    def decode(self, entries: list[Entry]) -> BroughtData:
        """What was read."""
        return BroughtData(**tupled(entries[0].meta))


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
    quick: ClassVar[bool] = True
    words: ClassVar[str] = "Comparing the checkpoints"
    model_a: str
    model_b: str

    def decode(self, entries: list[Entry]) -> list[TensorRow]:
        """One row per tensor; what does not fit comes first."""
        return [TensorRow(**row) for row in entries[0].meta["rows"]]
