"""Curves that several pages show: their names, rows and requests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from merging import visualization
from merging.results import requests
from merging.schema.cards.titles import method_title
from pages.shared import session
from pages.shared.jobs import Found
from pages.shared.rows import Row
from pages.shared.titles import method_of, path_title


def curve_requests(
    alignments: Iterable[requests.AlignmentRequest],
) -> list[requests.CurveRequest]:
    """Ask for the curves on the test split that tables are read from, the naive one first."""
    subject = session.subject()
    if not subject.data:
        return []  # without examples there are none
    return [requests.CurveRequest(subject=subject, alignment=a) for a in (None, *alignments)]


def named_curves(found: Sequence[Found[Any]]) -> list[visualization.NamedCurve]:
    """Name curves after their methods, for drawing; those along paths after the paths."""
    return [_named_curve(f) for f in found]


def _named_curve(found: Found[Any]) -> visualization.NamedCurve:
    method = method_of(found.request)
    if isinstance(found.request, requests.PathCurveRequest):
        label = path_title(found.request.path)
        return visualization.NamedCurve(
            method=method, curve=found.result.curve, label=label, on_path=True
        )
    return visualization.NamedCurve(method=method, curve=found.result)


def _named(curve: visualization.NamedCurve) -> str:
    return curve.title if curve.on_path else method_title(curve.method)


def curve_rows(curves: Sequence[visualization.NamedCurve]) -> list[Row]:
    """List every value of every curve, one row each."""
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
    """List barriers by both definitions, for loss and accuracy, one row per curve."""
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
    """Say on how many examples curves were evaluated."""
    curves = [named.curve for named in named_curves(found)]
    counts = {curve.split: curve.examples for curve in curves}
    return ", ".join(f"{n:,} {split} examples" for split, n in counts.items())
