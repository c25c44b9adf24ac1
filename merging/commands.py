"""What the command line does: requests, computed here and now, into the same store as the app's."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from merging import requests, subjects, tasks
from merging.cards import ASSETS, list_pairs
from merging.data.bundled import DATASETS, load_dataset
from merging.errors import MergingError
from merging.jobs import Context
from merging.recipes import compare, recipe
from merging.requests import Request, Subject
from merging.store import Store, open_default

_BAR = 30
_REPORT_SECONDS = 0.2


class _Progress(Context):
    """Progress as a bar on the terminal, where there is one."""

    def __init__(self, store: Store, key: str, title: str) -> None:
        super().__init__(store, key)
        self._title, self._shown = title, 0.0

    def report(self, done: float, total: float, note: str = "") -> None:
        """Draw the bar."""
        now = time.monotonic()
        if not sys.stderr.isatty() or now - self._shown < _REPORT_SECONDS:
            return
        self._shown = now
        filled = round(_BAR * done / total) if total else 0
        bar = "#" * filled + "." * (_BAR - filled)
        sys.stderr.write(f"\r{self._title} [{bar}] {note[:40]:40}")
        sys.stderr.flush()

    def flush(self) -> None:
        """Nothing is shown before it is done."""


class Session:
    """One run of the command line: a store, the files that were given, and what was computed.

    Args:
        store: Where results are kept; the app's own by default.
    """

    def __init__(self, store: Store | None = None) -> None:
        self.store = store or open_default(bundled=(ASSETS / "results",))[0]
        self.sources: dict[str, str] = {}
        self.notes: list[str] = []
        self.recipe: dict[str, Any] = {}

    def subject(self, arguments: Namespace) -> Subject:
        """The two models and the data that were named.

        Raises:
            MergingError: If they cannot be read, or do not fit.
        """
        if len(arguments.models) == 1:
            name = arguments.models[0]
            if name not in list_pairs():
                raise MergingError(
                    f"{name!r} is not a bundled pair; give two checkpoints, or one of "
                    f"{', '.join(list_pairs())}"
                )
            self.sources["pair"] = name
            return requests.bundled_subject(name)
        if len(arguments.models) != 2:
            raise MergingError("give two checkpoints, or the name of one bundled pair")
        architecture = arguments.model or ""
        if ":" in architecture and not architecture.startswith(("torchvision:", "timm:")):
            architecture = requests.canonical({"architecture": "own", "function": architecture})
        found = []
        for letter, path in zip("ab", arguments.models, strict=True):
            found.append(self._checkpoint(letter, Path(path), architecture))
            architecture = architecture or found[0]["config"]
        data, data_fingerprint = self._data(arguments.data, found[0]["config"])
        return Subject(
            found[0]["config"],
            found[0]["fingerprint"],
            found[1]["fingerprint"],
            data,
            data_fingerprint,
        )

    def _checkpoint(self, letter: str, path: Path, architecture: str) -> dict[str, Any]:
        found = subjects.keep_checkpoint(path, path.name, self.store, architecture=architecture)
        self.sources[f"model_{letter}"] = str(path)
        self.notes += [f"{path.name}: {note}" for note in found["notes"]]
        return found

    def _data(self, given: str | None, config: str) -> tuple[str, str]:
        if not given:
            return "", ""
        if given in DATASETS:
            return given, load_dataset(given).fingerprint
        path = Path(given)
        found = subjects.keep_data(path, path.name, config, self.store)
        self.sources["data"] = str(path)
        self.notes += found["notes"]
        return found["fingerprint"], found["fingerprint"]

    def compute(self, request: Request[Any]) -> Any:
        """The result of a request, computed here if it is not in the store; notes the recipe.

        Raises:
            MergingError: If it cannot be computed.
        """
        start = time.perf_counter()
        for needed in request.needs():
            self.compute(needed)
        for piece in request.job().pieces:
            if self.store.has([piece.key]):
                continue
            context = _Progress(self.store, piece.key, request.title)
            arrays, meta = tasks.run_piece(piece.payload, context)
            self.store.put(piece.key, arrays, meta)
        if sys.stderr.isatty():
            sys.stderr.write("\r\033[K")
        entries = [entry for entry in request.entries(self.store) if entry is not None]
        self.recipe = recipe(request, entries, self.sources, time.perf_counter() - start)
        return request.decode(entries)

    def write_recipe(self, path: Path) -> None:
        """Write the recipe of the last result."""
        path.write_text(json.dumps(self.recipe, indent=2) + "\n", "utf-8")


def inspect(arguments: Namespace, session: Session) -> dict[str, Any]:
    """What two models are made of: what fits, and what may be permuted."""
    subject = session.subject(arguments)
    rows = session.compute(requests.FitRequest(subject.model_a, subject.model_b))
    summary = session.compute(requests.SymmetryRequest(subject.config))
    verdicts = [row.verdict for row in rows]
    found: dict[str, Any] = {
        "config": json.loads(subject.config),
        "fingerprints": {"a": subject.model_a, "b": subject.model_b},
        "tensors": len(rows),
        "do not fit": verdicts.count("does not fit"),
        "equal values": verdicts.count("equal values"),
        "symmetry": asdict(summary),
    }
    if subject.data:
        ends = session.compute(requests.EndPointsRequest(subject))
        found["end points"] = {k: [asdict(row) for row in rows] for k, rows in ends.items()}
    return found


def doctor(arguments: Namespace, session: Session) -> dict[str, Any]:
    """Examine two models, and try weight matching where the answer is known."""
    return asdict(session.compute(requests.DiagnosisRequest(session.subject(arguments))))


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
        group: int((perm != np.arange(len(perm))).sum())
        for group, perm in found.permutations.items()
    }
    kept = session.recipe
    if arguments.out:
        is_permutation = arguments.out.endswith(".npz")
        file = session.compute(
            requests.ExportRequest(
                subject, alignment, "permutation" if is_permutation else "aligned"
            )
        )
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
    alignment = _alignment(arguments, subject)
    points: tuple[Any, ...] = ("a",) if alignment is None else ("a", "b", alignment)
    grid = session.compute(
        requests.SurfaceRequest(subject, points, level=arguments.level, seed=arguments.seed)
    )
    return {
        "x": grid.x.tolist(),
        "y": grid.y.tolist(),
        "loss": grid.loss.tolist(),
        "accuracy": grid.accuracy.tolist(),
        "points": [asdict(point) for point in grid.points],
    }


def connect(arguments: Namespace, session: Session) -> dict[str, Any]:
    """Train a low-loss path from A to the (aligned) B, and evaluate it beside the line."""
    subject = session.subject(arguments)
    alignment = _alignment(arguments, subject)
    options = dict(_option(text) for text in arguments.path_option)
    line = session.compute(requests.CurveRequest(subject, alignment, arguments.split))
    path = requests.path(subject, alignment, arguments.kind, options, seed=arguments.seed)
    reset = any(
        "running_mean" in axis
        for group in session.compute(requests.SymmetryRequest(subject.config)).groups
        for axis in group.axes
    )
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
        subject, _alignment(arguments, subject), "merged", arguments.lam, arguments.statistics
    )
    file = session.compute(request)
    Path(arguments.out or file.name).write_bytes(file.data)
    return {"written": arguments.out or file.name, "bytes": len(file.data), "notes": file.notes}


def replay(arguments: Namespace, _: Session) -> dict[str, Any]:
    """Make a result again from its recipe, and compare.

    Raises:
        MergingError: If the recipe cannot be read, or its files are not what they were.
    """
    old = _read_recipe(Path(arguments.recipe))
    request = requests.from_payload(old["request"])
    sources = old["sources"]
    with tempfile.TemporaryDirectory() as folder:  # an empty store: nothing is taken from before
        fresh = Session(Store(Path(folder)))
        if "pair" not in sources:
            given = Namespace(
                models=[sources["model_a"], sources["model_b"]],
                model=arguments.model,
                data=sources.get("data"),
            )
            now = fresh.subject(given)
            then = Subject(**old["request"]["subject"])
            for letter in ("a", "b"):
                if getattr(now, f"model_{letter}") != getattr(then, f"model_{letter}"):
                    raise MergingError(
                        f"{sources[f'model_{letter}']} is not the model that the recipe was made "
                        "with (another fingerprint); put the file back"
                    )
        fresh.compute(request)
        new = fresh.recipe
        fresh.store.close()
    differences = compare(old, new)
    return {"equal": not differences, "differences": differences, "result": new["result"]}


def _read_recipe(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
        if found["one_basin_recipe"] == 1 and {"request", "sources", "result"} <= set(found):
            return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MergingError(f"{path}: this is no recipe ({error})") from error
    raise MergingError(f"{path}: this is no recipe of this version")


def _alignment(arguments: Namespace, subject: Subject) -> requests.AlignmentRequest | None:
    if arguments.method == "naive":
        return None
    options = dict(_option(text) for text in arguments.option)
    return requests.alignment(subject, arguments.method, options, seed=arguments.seed)


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise MergingError(f"--option takes name=value, not {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
