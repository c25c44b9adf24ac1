"""Results in words, numbers and rows, as pages show them beside the charts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from merging.schema.cards.titles import NAIVE, method_title
from merging.schema.records.alignment import Alignment
from merging.schema.records.loss_unit import shared_unit
from pages.shared.jobs import Found
from pages.shared.rows import Row, tiny
from pages.shared.titles import method_of


def objective_rows(runs: Sequence[Alignment]) -> list[Row]:
    """List the objective of every method at the start and after every sweep or step."""
    return [
        {"Method": method_title(run.method), "Step": k, "Objective": value}
        for run in runs
        for k, value in enumerate(run.objective)
    ]


def alignment_rows(finished: Sequence[Found[Alignment]], curves: Sequence[Found[Any]]) -> list[Row]:
    """List what each method reached: barrier, midpoint, time, units, objective, certificate."""
    by_method = {method_of(c.request): c.result for c in curves if c.complete}
    runs: list[tuple[str, Alignment | None]] = [(NAIVE, None)]
    runs += [(f.request.method, f.result) for f in finished]
    rows = []
    units = {curve.loss_unit for curve in by_method.values()}
    barrier = f"Barrier ({shared_unit(units)})" if units else "Barrier"
    for method, run in runs:
        curve = by_method.get(method)
        row: Row = {"Method": method_title(method)}
        row[barrier] = None if curve is None else round(curve.barrier(), 4)
        row["± SE"] = None if curve is None else round(curve.locate_barrier().standard_error, 4)
        row["Midpoint (%)"] = None if curve is None else round(100 * curve.at(0.5)[1], 2)
        if run is not None:
            row["Seconds"] = round(run.seconds, 2)
            row["Units moved"] = f"{run.units_moved:,} of {run.units:,}"
            row["Objective"] = float(f"{run.objective[-1]:.5g}")
            row["Restarts"] = _spread(run)
            row["Change"] = tiny(run.max_relative_difference)
        rows.append(row)
    return rows


def _spread(run: Alignment) -> str:
    if len(run.restarts) < 2:
        return ""
    return f"{min(run.restarts):.5g} to {max(run.restarts):.5g}"
