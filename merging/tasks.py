"""How the pieces of requests are computed; runs in a worker (see `merging.jobs`)."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from merging import requests
from merging.checkpoints import checkpoint_bytes
from merging.doctor import examine
from merging.errors import MergingError, StoppedError
from merging.jobs import Context
from merging.landscape import (
    LEVELS,
    Plane,
    evaluate,
    evaluate_family,
    evaluate_points,
    filter_normalized_plane,
    grid_axes,
    layer_barriers,
    layer_distances,
    line_policy,
    new_points,
    plane_policy,
    plane_through,
    repair,
    variance_ratios,
)
from merging.matching import MatchProblem, MatchResult, describe_units, match
from merging.params import distance, lerp
from merging.permutation import permute
from merging.records import EndPoint, LayerRow, PlanePoint
from merging.store import Store
from merging.subjects import (
    Loaded,
    certified,
    keep_checkpoint,
    keep_data,
    load,
    load_params,
    uploaded,
)
from merging.symmetry import certify, summarise

Found = tuple[dict[str, np.ndarray], dict[str, Any]]
Part = Mapping[str, Any]


def run_piece(payload: str, context: Context) -> Found:
    """Compute one piece of a request.

    Args:
        payload: JSON of the request and the part.
        context: The store, and whom to tell about progress.

    Returns:
        Arrays and JSON values, as the request's `decode` reads them.

    Raises:
        MergingError: If the request cannot be met; the message is for a person.
    """
    torch.set_num_threads(1)
    values = json.loads(payload)
    request = requests.from_payload(values["request"])
    return _TASKS[request.task](request, values["part"], context)


def _symmetry(request: requests.SymmetryRequest, part: Part, context: Context) -> Found:
    start = time.perf_counter()
    network, spec = certified(request.config, context.store)
    certificate = certify(network.model, spec, network.example_inputs, seed=1)
    summary = summarise(spec, certificate, time.perf_counter() - start)
    return {}, {"summary": asdict(summary), "spec": spec.to_json()}


def _end_points(request: requests.EndPointsRequest, part: Part, context: Context) -> Found:
    loaded = load(request.subject, context.store)
    rows: dict[str, list[dict[str, Any]]] = {}
    for letter, params in (("a", loaded.params_a), ("b", loaded.params_b)):
        for split in (loaded.data.train, loaded.data.test):
            found = evaluate(loaded.model, params, split)
            point = EndPoint(
                split.name,
                len(split),
                float(found.loss[0]),
                float(found.standard_error[0]),
                float(found.accuracy[0]),
            )
            rows.setdefault(letter, []).append(asdict(point))
    return {}, rows


def _diagnosis(request: requests.DiagnosisRequest, part: Part, context: Context) -> Found:
    loaded = load(request.subject, context.store)
    network, _ = certified(request.subject.config, context.store)
    found = examine(
        network, loaded.spec, loaded.params_a, loaded.params_b, on_progress=context.report
    )
    return {}, asdict(found)


def _alignment(request: requests.AlignmentRequest, part: Part, context: Context) -> Found:
    loaded = load(request.subject, context.store)
    found = match(
        request.method,
        loaded.model,
        loaded.params_a,
        loaded.params_b,
        spec=loaded.spec,
        batches=loaded.data.train,
        seed=request.seed,
        options=json.loads(request.options),
        on_progress=context.report,
        on_partial=lambda result: context.partial(*_written(result, float("nan"))),
    )
    if found.stopped:
        # What was found stays visible, but is not taken for the method's own result.
        context.partial(*_written(found, _certified_difference(loaded, request, found)))
        raise StoppedError("stopped as asked")
    return _written(found, _certified_difference(loaded, request, found))


def _certified_difference(
    loaded: Loaded, request: requests.AlignmentRequest, found: MatchResult
) -> float:
    certificate = certify(
        loaded.model,
        loaded.spec,
        loaded.example_inputs,
        permutations=found.permutations,
    )
    if not certificate.ok:
        raise MergingError(
            f"the permutation found by {request.title.lower()} changes the function of model B by "
            f"{certificate.max_relative_difference:.1e}, more than {certificate.tolerance:.0e}; "
            "it is not used"
        )
    return certificate.max_relative_difference


def _written(found: MatchResult, difference: float) -> Found:
    arrays = {f"p{k}": perm.numpy() for k, perm in enumerate(found.permutations.values())}
    return arrays, {
        "groups": list(found.permutations),
        "method": found.method,
        "objective": list(found.objective),
        "objective_name": found.objective_name,
        "converged": found.converged,
        "stopped": found.stopped,
        "seconds": found.seconds,
        "restarts": list(found.restarts),
        "options": dict(found.options),
        "seed": found.seed,
        "max_relative_difference": difference,
    }


def _aligned(
    loaded: Loaded, alignment: requests.AlignmentRequest | None, store: Store
) -> dict[str, Tensor]:
    """Model B in the order of an alignment, or as it is."""
    if alignment is None:
        return loaded.params_b
    return permute(loaded.spec, _permutations(alignment, store), loaded.params_b)


def _permutations(alignment: requests.AlignmentRequest, store: Store) -> dict[str, Tensor]:
    found = alignment.read(store)
    if found is None:
        raise MergingError(f"the result of {alignment.title.lower()} is missing; run it again")
    return {group: torch.from_numpy(perm) for group, perm in found.permutations.items()}


def _curve(request: requests.CurveRequest, part: Part, context: Context) -> Found:
    loaded = load(request.subject, context.store)
    params_b = _aligned(loaded, request.alignment, context.store)
    batches = loaded.split(request.split)
    statistics = loaded.statistics_examples(request.statistics)
    prepare = line_policy(request.statistics, loaded.model, loaded.params_a, params_b, statistics)
    lams = np.array(part["positions"])
    found = evaluate_family(
        loaded.model,
        [loaded.params_a, params_b],
        np.stack([1 - lams, lams], axis=1),
        batches,
        prepare=prepare,
        on_progress=context.report,
    )
    words = _statistics_words(request.statistics, len(statistics))
    return (
        {"lams": lams, "losses": found.losses, "correct": found.correct},
        {"statistics": words, "split": request.split},
    )


def _statistics_words(kind: str, examples: int) -> str:
    if kind == "interpolated":
        return "interpolated"
    return f"{kind.upper()} on {examples:,} training examples"


def _surface(request: requests.SurfaceRequest, part: Part, context: Context) -> Found:
    loaded = load(request.subject, context.store)
    plane = _plane(request, loaded, context.store)
    if "models" in part:
        return {}, {"points": _shown(request, plane, loaded, context.store)}
    level = part["level"]
    cells = np.argwhere(new_points(level))[part["start"] : part["stop"]]
    x, y = grid_axes(plane, LEVELS[level], request.margin)
    batches = loaded.split(request.split)
    statistics = loaded.statistics_examples(request.statistics)
    values = evaluate_points(
        loaded.model,
        plane,
        np.stack([x[cells[:, 1]], y[cells[:, 0]]], axis=1),
        batches,
        prepare=plane_policy(request.statistics, loaded.model, statistics),
        on_progress=context.report,
    )
    return (
        {"cells": cells.T.astype(np.int16), "values": values.astype(np.float32)},
        {
            "level": level,
            "x": [float(x[0]), float(x[-1])],
            "y": [float(y[0]), float(y[-1])],
            "scale": plane.corners[1][0] if plane.orthonormal else 1.0,
            "examples": len(batches),
            "statistics": _statistics_words(request.statistics, len(statistics)),
        },
    )


def _plane(request: requests.SurfaceRequest, loaded: Loaded, store: Store) -> Plane:
    models = [_model(point, loaded, store) for point in request.points]
    if len(models) == 1:
        return filter_normalized_plane(models[0], torch.Generator().manual_seed(request.seed))
    return plane_through(*models)


def _model(
    point: str | requests.AlignmentRequest, loaded: Loaded, store: Store
) -> dict[str, Tensor]:
    if isinstance(point, requests.AlignmentRequest):
        return _aligned(loaded, point, store)
    return loaded.params_a if point == "a" else loaded.params_b


def _shown(
    request: requests.SurfaceRequest, plane: Plane, loaded: Loaded, store: Store
) -> list[dict[str, Any]]:
    points = {}
    for point in (*request.points, *request.shown):
        name = point.upper() if isinstance(point, str) else point.method
        params = _model(point, loaded, store)
        points[name] = PlanePoint(name, *plane.coordinates(params), plane.residual(params))
    return [asdict(point) for point in points.values()]


def _units(request: requests.UnitsRequest, part: Part, context: Context) -> Found:
    loaded = load(request.subject, context.store)
    problem = MatchProblem(loaded.model, loaded.spec, loaded.params_a, loaded.params_b)
    arrays: dict[str, np.ndarray] = {}
    groups = []
    for k, units in enumerate(
        describe_units(problem, _permutations(request.alignment, context.store))
    ):
        values = {name: getattr(units, name) for name in units.__dataclass_fields__}
        arrays.update({
            f"{n}{k}": values.pop(n) for n in list(values) if isinstance(values[n], np.ndarray)
        })
        groups.append({**values, "cycles": list(units.cycles)})
    return arrays, {"groups": groups}


def _layers(request: requests.LayersRequest, part: Part, context: Context) -> Found:
    loaded = load(request.subject, context.store)
    aligned = _aligned(loaded, request.alignment, context.store)
    batches = loaded.data.test.take(requests.LAYER_EXAMPLES)
    columns: list[dict[str, Any]] = []
    for k, params_b in enumerate((loaded.params_b, aligned)):
        columns += [
            layer_distances(loaded.params_a, params_b),
            layer_barriers(
                loaded.model,
                loaded.params_a,
                params_b,
                batches,
                on_progress=lambda done, total, note, k=k: context.report(  # type: ignore[misc]
                    k * total + done, 2 * total, note
                ),
            ),
            variance_ratios(loaded.model, loaded.params_a, params_b, batches),
        ]
    missing = float("nan")
    rows = [
        LayerRow(
            layer,
            columns[0][layer][0],
            columns[3][layer][0],
            columns[0][layer][1],
            columns[3][layer][1],
            columns[1][layer],
            columns[4][layer],
            columns[2].get(layer, missing),
            columns[5].get(layer, missing),
        )
        for layer in columns[0]
    ]
    return {}, {"rows": [asdict(row) for row in rows]}


def _export(request: requests.ExportRequest, part: Part, context: Context) -> Found:
    loaded = load(request.subject, context.store)
    method = "naive" if request.alignment is None else request.alignment.method
    stem = f"{request.subject.model_a[:8]}-{request.subject.model_b[:8]}-{method}"
    notes: list[str] = []
    if request.what == "permutation":
        if request.alignment is None:
            raise MergingError("there is no permutation without a matching method; choose one")
        data, name = _permutation_file(request.alignment, context.store), f"{stem}.npz"
    else:
        aligned = _aligned(loaded, request.alignment, context.store)
        params = aligned if request.what == "aligned" else _merged(request, loaded, aligned)
        meta = {
            "made_by": "One Basin",
            "what": request.what,
            "recipe": requests.canonical(request.payload),
        }
        data, name = checkpoint_bytes(params, meta), f"{stem}-{request.what}.safetensors"
        moved = distance(loaded.params_a, params)
        notes.append(f"{len(params)} tensors, {moved:.4g} from model A in weight space")
    return {"data": np.frombuffer(data, dtype=np.uint8)}, {"name": name, "notes": notes}


def _merged(
    request: requests.ExportRequest, loaded: Loaded, aligned: dict[str, Tensor]
) -> dict[str, Tensor]:
    if request.statistics == "interpolated":
        return lerp(loaded.params_a, aligned, request.lam)
    return repair(
        loaded.model,
        loaded.params_a,
        aligned,
        request.lam,
        loaded.statistics_examples(request.statistics),
        kind=request.statistics,
    )


def _permutation_file(alignment: requests.AlignmentRequest, store: Store) -> bytes:
    file = io.BytesIO()
    perms = {group: perm.numpy() for group, perm in _permutations(alignment, store).items()}
    np.savez_compressed(file, **perms)  # type: ignore[arg-type]
    return file.getvalue()


def _read_checkpoint(request: requests.CheckpointRequest, part: Part, context: Context) -> Found:
    data = uploaded(request.upload, request.name, context.store)
    return {}, keep_checkpoint(data, request.name, context.store, architecture=request.architecture)


def _read_data(request: requests.DataRequest, part: Part, context: Context) -> Found:
    data = uploaded(request.upload, request.name, context.store)
    return {}, keep_data(data, request.name, request.config, context.store)


def _fit(request: requests.FitRequest, part: Part, context: Context) -> Found:
    params_a, params_b = (
        load_params(model, context.store) for model in (request.model_a, request.model_b)
    )
    rows = []
    for name in dict.fromkeys([*params_a, *params_b]):
        a, b = (_shape_words(params.get(name)) for params in (params_a, params_b))
        same = a == b and torch.equal(params_a[name], params_b[name])
        verdict = "equal values" if same else "fits" if a == b else "does not fit"
        rows.append(asdict(requests.TensorRow(name, a, b, verdict)))
    rows.sort(key=lambda row: row["verdict"] != "does not fit")
    return {}, {"rows": rows}


def _shape_words(value: Tensor | None) -> str:
    if value is None:
        return "missing"
    return (
        f"{' × '.join(map(str, value.shape)) or 'scalar'} {str(value.dtype).removeprefix('torch.')}"
    )


_TASKS: Mapping[str, Callable[[Any, Part, Context], Found]] = {
    "symmetry": _symmetry,
    "end points": _end_points,
    "diagnosis": _diagnosis,
    "alignment": _alignment,
    "curve": _curve,
    "surface": _surface,
    "units": _units,
    "layers": _layers,
    "export": _export,
    "read checkpoint": _read_checkpoint,
    "read data": _read_data,
    "fit": _fit,
}
