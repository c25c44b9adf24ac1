"""Ask for one order of units for all models of a family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

from merging.results.compute.entry import Entry
from merging.results.requests.family import Family
from merging.results.requests.request import Request
from merging.schema.cards.matching import CommonOrderKind
from merging.schema.records.common_order import CommonOrder
from merging.schema.records.tupled import tupled

ORDER_TITLES: Mapping[CommonOrderKind, str] = {
    "first": "Each to the first",
    "merge many": "MergeMany",
    "cycle consistent": "Cycle-consistent",
}


@dataclass(frozen=True)
class OrderRequest(Request[CommonOrder]):
    """Permutations that put the models of a family into one order of units."""

    task: ClassVar[str] = "order"
    family: Family
    kind: CommonOrderKind = "first"
    seed: int = 0

    @property
    def title(self) -> str:
        """What a person reads while it is computed."""
        return f"Lining up {len(self.family.models)} models ({ORDER_TITLES[self.kind].lower()})"

    def encode(self, found: CommonOrder) -> Entry:
        """Return the order as it is stored: one array per model and group."""
        arrays = {
            f"m{m}p{k}": perm
            for m, perms in enumerate(found.permutations)
            for k, perm in enumerate(perms.values())
        }
        meta = {f.name: getattr(found, f.name) for f in fields(found)}
        perms = meta.pop("permutations")
        return Entry(arrays, {**meta, "groups": list(perms[0]), "models": len(perms)})

    def decode(self, entry: Entry) -> CommonOrder:
        """Return the order."""
        arrays, meta = entry.arrays, tupled(entry.meta)
        groups, models = meta.pop("groups"), range(meta.pop("models"))
        perms = ({g: arrays[f"m{m}p{k}"] for k, g in enumerate(groups)} for m in models)
        return CommonOrder(permutations=tuple(perms), **meta)
