"""Units and layers as rows of tables."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from merging import visualization
from merging.schema.records.alignment import GroupUnits, LayerRow
from pages.shared import words
from pages.shared.rows import Row, rounded


def unit_metrics(units: GroupUnits) -> None:
    """Show fixed points, cycles and similarity of one group, beside what chance would give."""
    columns = st.columns(4)
    chance = f"Fixed points (by chance: {units.fixed_parents})"
    columns[0].metric(words.plain(chance), f"{units.fixed_points:d}", border=True)
    expected = visualization.chance_cycles(units)
    columns[1].metric(f"Cycles (by chance: {expected:.1f})", f"{len(units.cycles):d}", border=True)
    columns[2].metric("Similarity of matched units", f"{units.matched.mean():.3f}", border=True)
    sure = float((units.margin > 0).mean())
    columns[3].metric("Matched to most similar", f"{sure:.0%}", border=True)


def order_words(order: str) -> str:
    """Say how to read the dots of a permutation in some order."""
    return f"{_ORDER_WORDS[order]} A negative margin: another unit of B is more similar."


_ORDER_WORDS = {
    "index": "A dot at (i, j): B's unit j plays A's unit i. On the grey line units stay in place.",
    "match": "Every unit of A against its partner, best match first: all are on the grey line.",
    "cycle": "Every cycle is a run of dots beside the grey line, and one dot that leads back.",
}


def unit_rows(units: GroupUnits) -> list[Row]:
    """List which unit of B plays which unit of A, in one group."""
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
    """Return a unit by its number; of a nested group, also by what it belongs to."""
    if units.run == units.permutation.size:
        return {f"Unit of {model}": unit}
    owner, inside = divmod(unit, units.run)
    return {f"Unit of {model}": unit, f"{model}: inside": f"{owner}, place {inside}"}


def layer_rows(rows: Sequence[LayerRow]) -> list[Row]:
    """List every number of every layer, before and after alignment."""
    return [
        {
            _heading(name, row): rounded(getattr(row, name))
            for name in row.__dataclass_fields__
            if name != "loss_unit"
        }
        for row in rows
    ]


def _heading(name: str, row: LayerRow) -> str:
    words = name.replace("_", " ").capitalize()
    return f"{words} ({row.loss_unit})" if name.startswith("barrier_") else words
