"""What the command line does: requests, computed here and now, into the same store as the app's."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from merging.cli.arguments import read_option
from merging.cli.session import Session
from merging.results import requests
from merging.results.requests import Subject
from merging.schema.cards.matching import METHOD_CARDS
from merging.schema.errors import MergingError


def inspect(arguments: Namespace, session: Session) -> dict[str, Any]:
    """What two models are made of: what fits, and what may be permuted."""
    subject = session.subject(arguments)
    rows = session.compute(requests.FitRequest(subject.model_a, subject.model_b))
    summary = session.compute(requests.SymmetryRequest(subject.config, subject.spec))
    if arguments.spec_out:
        Path(arguments.spec_out).write_text(summary.spec + "\n", "utf-8")
    verdicts = [row.verdict for row in rows]
    found: dict[str, Any] = {
        "config": json.loads(subject.config),
        "fingerprints": {"a": subject.model_a, "b": subject.model_b},
        "tensors": len(rows),
        "do not fit": verdicts.count("does not fit"),
        "equal values": verdicts.count("equal values"),
        "symmetry": {k: v for k, v in asdict(summary).items() if k != "spec"},
        "before you match": asdict(session.compute(requests.ForecastRequest(subject))),
    }
    if subject.data:
        ends = session.compute(requests.EndPointsRequest(subject))
        found["end points"] = {k: [asdict(row) for row in rows] for k, rows in ends.items()}
    return found


def doctor(arguments: Namespace, session: Session) -> dict[str, Any]:
    """Examine two models, and try weight matching where the answer is known."""
    subject = session.subject(arguments)
    forecast = session.compute(requests.ForecastRequest(subject))
    found = asdict(session.compute(requests.DiagnosisRequest(subject)))
    return {"before you match": asdict(forecast), **found, "advice": _advice(forecast.shared_start)}


def _advice(shared_start: bool) -> str:
    if shared_start:
        return (
            "A and B were trained from one starting point: they need no alignment, and it may do "
            "harm; fuse them as they are"
        )
    return "no common start: align B to A before merging"


def match(arguments: Namespace, session: Session) -> dict[str, Any]:
    """Find the permutation of B, and write it, or the aligned model.

    Raises:
        MergingError: If the method is no matching method, or the models cannot be matched.
    """
    subject = session.subject(arguments)
    alignment = _alignment(arguments, subject)
    if alignment is None:
        raise MergingError("naive is no matching method; choose another with --method")
    found = session.compute(alignment)
    moved = {
        group: int((perm != np.arange(perm.shape[-1])).sum())
        for group, perm in found.permutations.items()
    }
    kept = session.recipe
    if arguments.out:
        form = {} if arguments.out.endswith(".npz") else _form(arguments.out, session.prefixes["b"])
        what: Any = "aligned" if form else "permutation"
        file = session.compute(requests.ExportRequest(subject, alignment, what, **form))
        Path(arguments.out).write_bytes(file.data)
    session.recipe = kept
    return {
        "method": found.method,
        "objective": found.objective[-1],
        "objective_name": found.objective_name,
        "converged": found.converged,
        "seconds": found.seconds,
        "units moved": moved,
        "certificate": found.max_relative_difference,
        "written": arguments.out,
    }


def interpolate(arguments: Namespace, session: Session) -> dict[str, Any]:
    """Loss and accuracy along the line between the models."""
    subject = session.subject(arguments)
    request = requests.CurveRequest(
        subject,
        _alignment(arguments, subject),
        arguments.split,
        arguments.statistics,
        arguments.lams,
        arguments.overshoot,
    )
    curve = session.compute(request)
    barriers = {b: curve.locate_barrier(b) for b in ("endpoints-mean", "linear")}
    return {
        "lams": curve.lams.tolist(),
        "loss": curve.loss.tolist(),
        "accuracy": curve.accuracy.tolist(),
        "loss standard error": curve.standard_error().tolist(),
        "barriers": {
            name: {"value": b.value, "at": b.lam, "standard error": b.standard_error}
            for name, b in barriers.items()
        },
        "examples": curve.examples,
        "statistics": curve.statistics,
    }


def surface(arguments: Namespace, session: Session) -> dict[str, Any]:
    """Loss over the plane through A, B and the aligned B, or along random directions."""
    subject = session.subject(arguments)
    aligned = "" if arguments.method == "naive" else f",b,{arguments.method}"
    points = _points(arguments.points or f"a{aligned}", arguments, subject)
    request = requests.SurfaceRequest(
        subject,
        points,
        _points(arguments.shown, arguments, subject) if arguments.shown else (),
        level=arguments.level,
        split=arguments.split,
        statistics=arguments.statistics,
        margin=arguments.margin,
        seed=arguments.seed if len(points) == 1 else 0,
    )
    grid = session.compute(request)
    return {
        "x": grid.x.tolist(),
        "y": grid.y.tolist(),
        "loss": grid.loss.tolist(),
        "accuracy": grid.accuracy.tolist(),
        "points": [asdict(point) for point in grid.points],
        "split": grid.split,
        "statistics": grid.statistics,
    }


def _points(text: str, arguments: Namespace, subject: Subject) -> tuple[Any, ...]:
    """Models of a plane by name: `a`, `b`, or a method for B as it aligns it."""
    names = [name.strip() for name in text.split(",")]
    return tuple(
        name if name in ("a", "b") else _aligned_by(name, arguments, subject) for name in names
    )


def connect(arguments: Namespace, session: Session) -> dict[str, Any]:
    """Train a low-loss path from A to the (aligned) B, and evaluate it beside the line."""
    subject = session.subject(arguments)
    alignment = _alignment(arguments, subject)
    options = dict(read_option(text) for text in arguments.path_option)
    line = session.compute(requests.CurveRequest(subject, alignment, arguments.split))
    path = requests.path(subject, alignment, arguments.kind, options, seed=arguments.seed)
    reset = session.compute(requests.SymmetryRequest(subject.config)).keeps_statistics
    found = session.compute(
        requests.PathCurveRequest(
            subject, path, arguments.split, "reset" if reset else "interpolated"
        )
    )
    return {
        "kind": found.path.kind,
        "bends": found.path.bends,
        "length": found.path.length,
        "distance from the line": found.path.distance,
        "training loss": list(found.path.history),
        "settled": found.path.converged,
        "seconds": found.path.seconds,
        "positions": found.curve.lams.tolist(),
        "loss": found.curve.loss.tolist(),
        "accuracy": found.curve.accuracy.tolist(),
        "barriers": {"line": line.barrier(), "path": found.curve.barrier()},
        "examples": found.curve.examples,
        "statistics": found.curve.statistics,
    }


def merge(arguments: Namespace, session: Session) -> dict[str, Any]:
    """Write the (aligned) model between A and B."""
    subject = session.subject(arguments)
    request = requests.ExportRequest(
        subject,
        _alignment(arguments, subject),
        "merged",
        arguments.lam,
        arguments.statistics,
        **_form(arguments.out or "", session.prefixes["a"]),
    )
    file = session.compute(request)
    Path(arguments.out or file.name).write_bytes(file.data)
    return {"written": arguments.out or file.name, "bytes": len(file.data), "notes": file.notes}


def _form(out: str, prefix: str) -> dict[str, Any]:
    """How a model is written: container by the file's ending, names as they were brought."""
    return {"prefix": prefix, "container": "pt" if out.endswith((".pt", ".pth")) else "safetensors"}


def _alignment(arguments: Namespace, subject: Subject) -> requests.AlignmentRequest | None:
    if arguments.method == "naive":
        return None
    return _aligned_by(arguments.method, arguments, subject)


def _aligned_by(method: str, arguments: Namespace, subject: Subject) -> requests.AlignmentRequest:
    """The alignment by a method; `method.name=value` are options of that method alone.

    Raises:
        MergingError: If an option names a method that there is not.
    """
    options = {}
    for text in arguments.option:
        name, value = read_option(text)
        owner, dot, short = name.rpartition(".")
        if not dot or owner == method:
            options[short] = value
        elif owner not in METHOD_CARDS:
            raise MergingError(
                f"--option {text}: {owner!r} is no matching method; choose from "
                f"{', '.join(METHOD_CARDS)}"
            )
    return requests.alignment(subject, method, options, seed=arguments.seed)
