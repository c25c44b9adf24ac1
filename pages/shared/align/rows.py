"""Results in words, numbers and rows, as pages show them beside the charts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from merging.schema.records.alignment import Alignment
from pages.shared.jobs import Found
from pages.shared.rows import Row, _tiny
from pages.shared.titles import _method_of, _title


def objective_rows(runs: Sequence[Alignment]) -> list[Row]:
    """The objective of every method at the start and after every sweep or step."""
    return [
        {"Method": _title(run.method), "Step": k, "Objective": value}
        for run in runs
        for k, value in enumerate(run.objective)
    ]


def alignment_rows(finished: Sequence[Found[Alignment]], curves: Sequence[Found[Any]]) -> list[Row]:
    """What each method reached: barrier, midpoint, time, units moved, objective, certificate."""
    by_method = {_method_of(c.request): c.result for c in curves if c.complete}
    runs: list[tuple[str, Alignment | None]] = [("naive", None)]
    runs += [(f.request.method, f.result) for f in finished]
    rows = []
    unit = next((curve.loss_unit for curve in by_method.values()), "nats")
    for method, run in runs:
        curve = by_method.get(method)
        row: Row = {"Method": _title(method)}
        row[f"Barrier ({unit})"] = None if curve is None else round(curve.barrier(), 4)
        row["± SE"] = None if curve is None else round(curve.locate_barrier().standard_error, 4)
        row["Midpoint (%)"] = None if curve is None else round(100 * curve.at(0.5)[1], 2)
        if run is not None:
            row["Seconds"] = round(run.seconds, 2)
            row["Units moved"] = f"{run.units_moved:,} of {run.units:,}"
            row["Objective"] = float(f"{run.objective[-1]:.5g}")
            row["Restarts"] = _spread(run)
            row["Kept to"] = _tiny(run.max_relative_difference)
        rows.append(row)
    return rows


def _spread(run: Alignment) -> str:
    if len(run.restarts) < 2:
        return ""
    return f"{min(run.restarts):.5g} to {max(run.restarts):.5g}"
