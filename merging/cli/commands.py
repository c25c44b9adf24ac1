"""What the command line does with two models."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from merging.cli import wanted
from merging.cli.opened import open_pair
from merging.cli.session import Answer, Session
from merging.results import requests
from merging.schema.errors import MergingError


def inspect(asked: wanted.Inspect, session: Session) -> Answer:
    """Say what two models are made of: what fits, and what may be permuted."""
    pair = open_pair(asked.named, session.store)
    subject = pair.subject
    rows = session.compute(requests.FitRequest(subject.model_a, subject.model_b))
    summary = session.compute(requests.SymmetryRequest(subject.config, subject.spec))
    if asked.spec_out:
        Path(asked.spec_out).write_text(summary.spec + "\n", "utf-8")
    verdicts = [row.verdict for row in rows]
    last = session.run(requests.ForecastRequest(subject))
    found: dict[str, Any] = {
        "config": json.loads(subject.config),
        "fingerprints": {"a": subject.model_a, "b": subject.model_b},
        "tensors": len(rows),
        "do not fit": verdicts.count("does not fit"),
        "equal values": verdicts.count("equal values"),
        "symmetry": {k: v for k, v in asdict(summary).items() if k != "spec"},
        "before you match": asdict(last.result),
    }
    if subject.data:
        last = session.run(requests.EndPointsRequest(subject))
        found["end points"] = {k: [asdict(row) for row in rows] for k, rows in last.result.items()}
    return Answer(found, pair.origin.notes, last.recipe(pair.origin))


def doctor(asked: wanted.Doctor, session: Session) -> Answer:
    """Examine two models, and try weight matching where the answer is known."""
    pair = open_pair(asked.named, session.store)
    forecast = session.compute(requests.ForecastRequest(pair.subject))
    diagnosis = session.run(requests.DiagnosisRequest(pair.subject))
    found = {
        "before you match": asdict(forecast),
        **asdict(diagnosis.result),
        "advice": _advice(forecast.shared_start),
    }
    return Answer(found, pair.origin.notes, diagnosis.recipe(pair.origin))


def _advice(shared_start: bool) -> str:
    if shared_start:
        return (
            "A and B were trained from one starting point: they need no alignment, and it may do "
            "harm; fuse them as they are"
        )
    return "no common start: align B to A before merging"


def match(asked: wanted.Match, session: Session) -> Answer:
    """Find the permutation of B, and write it, or the aligned model.

    Raises:
        MergingError: If the method is not a matching method, or the models cannot be matched.
    """
    pair = open_pair(asked.named, session.store)
    alignment = asked.matching.alignment(pair.subject)
    if alignment is None:
        raise MergingError("naive is not a matching method; choose one with --method")
    computed = session.run(alignment)
    found = computed.result
    moved = {
        group: int((perm != np.arange(perm.shape[-1])).sum())
        for group, perm in found.permutations.items()
    }
    if asked.out:
        file = session.compute(asked.file(pair.subject, alignment, pair.prefix(1)))
        Path(asked.out).write_bytes(file.data)
    said = {
        "method": found.method,
        "objective": found.objective[-1],
        "objective_name": found.objective_name,
        "converged": found.converged,
        "seconds": found.seconds,
        "units moved": moved,
        "certificate": found.max_relative_difference,
        "written": asked.out,
    }
    return Answer(said, pair.origin.notes, computed.recipe(pair.origin))


def interpolate(asked: wanted.Interpolate, session: Session) -> Answer:
    """Evaluate loss and accuracy along the line between the models."""
    pair = open_pair(asked.named, session.store)
    computed = session.run(asked.request(pair.subject))
    curve = computed.result
    barriers = {b: curve.locate_barrier(b) for b in ("endpoints-mean", "linear")}
    found = {
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
    return Answer(found, pair.origin.notes, computed.recipe(pair.origin))


def surface(asked: wanted.Surface, session: Session) -> Answer:
    """Evaluate loss over the plane through A, B and the aligned B, or along random directions."""
    pair = open_pair(asked.named, session.store)
    computed = session.run(asked.request(pair.subject))
    grid = computed.result
    found = {
        "x": grid.x.tolist(),
        "y": grid.y.tolist(),
        "loss": grid.loss.tolist(),
        "accuracy": grid.accuracy.tolist(),
        "points": [asdict(point) for point in grid.points],
        "split": grid.split,
        "statistics": grid.statistics,
    }
    return Answer(found, pair.origin.notes, computed.recipe(pair.origin))


def connect(asked: wanted.Connect, session: Session) -> Answer:
    """Train a low-loss path from A to the (aligned) B, and evaluate it beside the line."""
    pair = open_pair(asked.named, session.store)
    subject = pair.subject
    line = session.compute(asked.line(subject))
    symmetry = session.compute(requests.SymmetryRequest(subject.config))
    wanted_path = asked.path(subject, keeps_statistics=symmetry.keeps_statistics)
    computed = session.run(wanted_path)
    trained, curve = computed.result.path, computed.result.curve
    found = {
        "kind": trained.kind,
        "bends": trained.bends,
        "length": trained.length,
        "distance from the line": trained.distance,
        "training loss": list(trained.history),
        "settled": trained.converged,
        "seconds": trained.seconds,
        "positions": curve.lams.tolist(),
        "loss": curve.loss.tolist(),
        "accuracy": curve.accuracy.tolist(),
        "barriers": {"line": line.barrier(), "path": curve.barrier()},
        "examples": curve.examples,
        "statistics": curve.statistics,
    }
    return Answer(found, pair.origin.notes, computed.recipe(pair.origin))


def merge(asked: wanted.Merge, session: Session) -> Answer:
    """Write the (aligned) model between A and B."""
    pair = open_pair(asked.named, session.store)
    computed = session.run(asked.request(pair.subject, pair.prefix(0)))
    file = computed.result
    out = asked.out or file.name
    Path(out).write_bytes(file.data)
    found = {"written": out, "bytes": len(file.data), "notes": file.notes}
    return Answer(found, pair.origin.notes, computed.recipe(pair.origin))
