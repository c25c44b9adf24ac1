"""Ask for one order of units for all models of a family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from merging.results.compute.entry import Entry
from merging.results.requests.family import Family
from merging.results.requests.request import Request
from merging.schema.records.common_order import CommonOrder

Order = Literal["first", "merge many", "cycle consistent"]


ORDER_TITLES: Mapping[Order, str] = {
    "first": "Each to the first",
    "merge many": "MergeMany",
    "cycle consistent": "Cycle-consistent",
}


@dataclass(frozen=True)
class OrderRequest(Request[CommonOrder]):
    """Permutations that bring the models of a family into one order of units."""

    task: ClassVar[str] = "order"
    family: Family
    kind: Order = "first"
    seed: int = 0

    @property
    def title(self) -> str:
        """What a person reads while it is computed."""
        return f"Lining up {len(self.family.models)} models ({ORDER_TITLES[self.kind].lower()})"

    def decode(self, entries: list[Entry]) -> CommonOrder:
        """The order."""
        arrays, meta = entries[0].arrays, dict(entries[0].meta)
        groups, models = meta.pop("groups"), range(meta.pop("models"))
        meta["objective"] = tuple(meta["objective"])
        return CommonOrder(
            tuple({g: arrays[f"m{m}p{k}"] for k, g in enumerate(groups)} for m in models), **meta
        )
