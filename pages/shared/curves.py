"""Curves that several pages show: their names, rows and requests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from merging import visualization
from merging.results import requests
from pages.shared import session
from pages.shared.jobs import Found
from pages.shared.rows import Row
from pages.shared.titles import _method_of, _title, path_title


def curve_requests(
    alignments: Iterable[requests.AlignmentRequest],
) -> list[requests.CurveRequest]:
    """Curves on the test split, the naive one first, that the table of results is read from."""
    subject = session.subject()
    if not subject.data:
        return []  # without examples there are none
    return [requests.CurveRequest(subject, a) for a in (None, *alignments)]


def named_curves(found: Sequence[Found[Any]]) -> list[visualization.NamedCurve]:
    """Curves with their methods, for drawing; those along paths with the paths' names."""
    return [_named_curve(f) for f in found]


def _named_curve(found: Found[Any]) -> visualization.NamedCurve:
    method = _method_of(found.request)
    if isinstance(found.request, requests.PathCurveRequest):
        label = path_title(found.request.path)
        return visualization.NamedCurve(method, found.result.curve, label, on_path=True)
    return visualization.NamedCurve(method, found.result)


def _named(curve: visualization.NamedCurve) -> str:
    return curve.title if curve.on_path else _title(curve.method)


def curve_rows(curves: Sequence[visualization.NamedCurve]) -> list[Row]:
    """Every value of every curve, in tidy form."""
    return [
        {
            "Method": _named(named),
            "Split": named.curve.split,
            "λ": round(float(lam), 4),
            f"Loss ({named.curve.loss_unit})": float(loss),
            "Loss SE": float(error),
            "Accuracy (%)": 100 * float(accuracy),
        }
        for named in curves
        for lam, loss, error, accuracy in zip(
            named.curve.lams,
            named.curve.loss,
            named.curve.standard_error(),
            named.curve.accuracy,
            strict=True,
        )
    ]


def barrier_rows(curves: Sequence[visualization.NamedCurve]) -> list[Row]:
    """Both definitions of the barrier, for loss and accuracy."""
    rows = []
    for named in curves:
        mean = named.curve.locate_barrier()
        rows.append({
            "Method": _named(named),
            "Split": named.curve.split,
            f"Loss barrier ({named.curve.loss_unit})": round(mean.value, 4),
            "± SE": round(mean.standard_error, 4),
            "at λ": round(mean.lam, 3),
            "Above the line": round(named.curve.barrier("linear"), 4),
            "Accuracy (points)": round(100 * named.curve.barrier("endpoints-mean", "accuracy"), 2),
            "Midpoint (%)": round(100 * named.curve.at(0.5)[1], 2),
        })
    return rows


def examples_words(found: Sequence[Found[Any]]) -> str:
    """On how many examples curves were evaluated."""
    curves = [named.curve for named in named_curves(found)]
    counts = {curve.split: curve.examples for curve in curves}
    return ", ".join(f"{n:,} {split} examples" for split, n in counts.items())
