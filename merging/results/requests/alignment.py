"""What can be asked of an alignment: the permutation, its units and layers, files of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal

import numpy as np

from merging.results.compute.entry import Entry
from merging.results.requests.request import Request, Subject, added, canonical
from merging.results.requests.wire import row_records, rows_entry
from merging.schema.cards.landscape import Statistics
from merging.schema.cards.matching import find_card, read_options
from merging.schema.records.alignment import Alignment, GroupUnits, LayerRow
from merging.schema.records.tupled import tupled

# Test examples behind the layer-wise figures: two curves per layer are many.
LAYER_EXAMPLES = 500

_UNIT_ARRAYS = ("permutation", "before", "after", "matched", "margin")


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

    def encode(self, found: Alignment) -> Entry:
        """Return the alignment as it is stored: one array per group."""
        arrays = {f"p{k}": perm for k, perm in enumerate(found.permutations.values())}
        meta = {f.name: getattr(found, f.name) for f in fields(found)}
        meta["groups"] = list(meta.pop("permutations"))
        return Entry(arrays, {**meta, "options": dict(found.options)})

    def decode(self, entry: Entry) -> Alignment:
        """Return the alignment."""
        meta = tupled(entry.meta)
        groups = meta.pop("groups")
        perms = {group: entry.arrays[f"p{k}"] for k, group in enumerate(groups)}
        return Alignment(permutations=perms, **meta)


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
    return AlignmentRequest(
        subject=subject, method=method, options=canonical(asdict(chosen)), seed=seed
    )


@dataclass(frozen=True)
class UnitsRequest(Request[list[GroupUnits]]):
    """How the units of every group are paired."""

    task: ClassVar[str] = "units"
    words: ClassVar[str] = "Comparing the units"
    subject: Subject
    alignment: AlignmentRequest

    def needs(self) -> tuple[Request[Any], ...]:
        """Return the permutation."""
        return (self.alignment,)

    def encode(self, found: list[GroupUnits]) -> Entry:
        """Return one record per group as they are stored; arrays are numbered by group."""
        arrays: dict[str, np.ndarray] = {}
        groups = []
        for k, units in enumerate(found):
            arrays |= {f"{name}{k}": getattr(units, name) for name in _UNIT_ARRAYS}
            names = [f.name for f in fields(units) if f.name not in _UNIT_ARRAYS]
            groups.append({name: getattr(units, name) for name in names})
        return Entry(arrays, {"groups": groups})

    def decode(self, entry: Entry) -> list[GroupUnits]:
        """Return one record per group."""
        units = []
        for k, group in enumerate(entry.meta["groups"]):
            values: dict[str, Any] = {n: entry.arrays[f"{n}{k}"] for n in _UNIT_ARRAYS}
            units.append(GroupUnits(**tupled(group), **values))
        return units


@dataclass(frozen=True)
class LayersRequest(Request[list[LayerRow]]):
    """The two models layer by layer, before and after alignment."""

    task: ClassVar[str] = "layers"
    words: ClassVar[str] = "Comparing layer by layer"
    subject: Subject
    alignment: AlignmentRequest

    def needs(self) -> tuple[Request[Any], ...]:
        """Return the permutation."""
        return (self.alignment,)

    def encode(self, found: list[LayerRow]) -> Entry:
        """Return one row per layer as they are stored."""
        return rows_entry(found)

    def decode(self, entry: Entry) -> list[LayerRow]:
        """Return one row per layer."""
        return row_records(LayerRow, entry)


@dataclass(frozen=True)
class Download:
    """A file to hand over."""

    name: str
    data: bytes
    notes: tuple[str, ...] = ()


def download_entry(found: Download) -> Entry:
    """Return a file to hand over as it is stored."""
    data = np.frombuffer(found.data, dtype=np.uint8)
    return Entry({"data": data}, {"name": found.name, "notes": found.notes})


def read_download(entry: Entry) -> Download:
    """Return the file that `download_entry` wrote."""
    meta = entry.meta
    return Download(meta["name"], entry.arrays["data"].tobytes(), tuple(meta["notes"]))


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
        """Return the permutation."""
        return () if self.alignment is None else (self.alignment,)

    def encode(self, found: Download) -> Entry:
        """Return the file as it is stored."""
        return download_entry(found)

    def decode(self, entry: Entry) -> Download:
        """Return the file."""
        return read_download(entry)
