"""Units and layers as rows of tables."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from merging import visualization
from merging.schema.records.alignment import GroupUnits, LayerRow
from pages.shared import words
from pages.shared.rows import Row, _rounded


def unit_metrics(units: GroupUnits) -> None:
    """Fixed points, cycles and similarity of one group, beside what chance would give."""
    columns = st.columns(4)
    chance = f"Fixed points (by chance: {units.fixed_parents})"
    columns[0].metric(words.plain(chance), f"{units.fixed_points:d}", border=True)
    expected = visualization.chance_cycles(units)
    columns[1].metric(f"Cycles (by chance: {expected:.1f})", f"{len(units.cycles):d}", border=True)
    columns[2].metric("Similarity of matched units", f"{units.matched.mean():.3f}", border=True)
    sure = float((units.margin > 0).mean())
    columns[3].metric("Matched to the most alike", f"{sure:.0%}", border=True)


def order_words(order: str) -> str:
    """How to read the dots of a permutation in some order."""
    return f"{_ORDER_WORDS[order]} A negative margin: another unit of B is more alike."


_ORDER_WORDS = {
    "index": "A dot at (i, j): B's unit j plays A's unit i. On the grey line units stay in place.",
    "match": "Every unit of A against its own partner, the most alike first: the grey line.",
    "cycle": "Every cycle is a run of dots beside the grey line, and one that leads back.",
}


def unit_rows(units: GroupUnits) -> list[Row]:
    """Who plays whom in one group."""
    return [
        {
            **_unit_of("A", k, units),
            **_unit_of("B", int(b), units),
            "Similarity": round(float(s), 4),
            "Margin": round(float(m), 4),
        }
        for k, (b, s, m) in enumerate(
            zip(units.permutation, units.matched, units.margin, strict=True)
        )
    ]


def _unit_of(model: str, unit: int, units: GroupUnits) -> Row:
    """A unit by its number; of a nested group, also by what it belongs to."""
    if units.run == units.permutation.size:
        return {f"Unit of {model}": unit}
    owner, inside = divmod(unit, units.run)
    return {f"Unit of {model}": unit, f"{model}: inside": f"{owner}, place {inside}"}


def layer_rows(rows: Sequence[LayerRow]) -> list[Row]:
    """Every figure of every layer, before and after alignment."""
    return [
        {
            name.replace("_", " ").capitalize(): _rounded(getattr(row, name))
            for name in row.__dataclass_fields__
        }
        for row in rows
    ]
