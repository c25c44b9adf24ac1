"""What can be asked of an alignment: the permutation, its units and layers, files of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from merging.results.compute.entry import Entry
from merging.results.requests.request import Request, Statistics, Subject, added, canonical, tupled
from merging.schema.cards.matching import find_card, read_options
from merging.schema.records.alignment import Alignment, GroupUnits, LayerRow

# Test examples behind the layer-wise figures: two curves per layer are many.
LAYER_EXAMPLES = 500


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
            units.append(GroupUnits(**{**tupled(group), **values}))
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
    """The permutation (`.npz`), or the aligned or merged model, as a file.

    Models are written in the dtypes of the file that they come from: B's if aligned, A's if merged.

    Attributes:
        prefix: What is put before all names: what was cut off when the file was read.
        container: Of models: `"safetensors"`, or `"pt"` as `torch.save` writes it.
    """

    task: ClassVar[str] = "export"
    subject: Subject
    alignment: AlignmentRequest | None
    what: Literal["permutation", "aligned", "merged"]
    lam: float = 0.5
    statistics: Statistics = "interpolated"
    prefix: str = added("")
    container: Literal["safetensors", "pt"] = added("safetensors")

    @property
    def title(self) -> str:
        """What a person reads while it is computed."""
        return f"Writing the {self.what} file"

    def needs(self) -> tuple[Request[Any], ...]:
        """The permutation."""
        return () if self.alignment is None else (self.alignment,)

    def decode(self, entries: list[Entry]) -> Download:
        """The file."""
        arrays, meta = entries[0].arrays, entries[0].meta
        return Download(meta["name"], arrays["data"].tobytes(), tuple(meta["notes"]))
