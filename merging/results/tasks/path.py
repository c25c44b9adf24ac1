"""Tasks of trained paths: training them, and loss and accuracy along them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from torch import Tensor

from merging.files.checkpoints.lazy_params import Params
from merging.landscape import (
    Path,
    Plane,
    connect,
    curve_of,
    evaluate_family,
    off_line,
    path_of,
    plane_policy,
)
from merging.landscape.evaluate.losses import unit_for
from merging.landscape.paths.path import PathKind
from merging.models.state_dict import distance, dot, floating, subtract
from merging.results import requests
from merging.results.compute.run_piece import Context
from merging.results.compute.store import Store
from merging.results.requests.path import PathCurve
from merging.results.tasks.load_pair import Loaded, load
from merging.results.tasks.task import Part, aligned_b, statistics_words
from merging.schema.errors import MergingError, StoppedError
from merging.schema.records.loss_unit import LossUnit
from merging.schema.records.surface import PlanePath
from merging.schema.records.trained_path import StoredPath, TrainedPath

# Points along a path that is drawn on a plane.
_DRAWN = 41


def train_path(request: requests.PathRequest, part: Part, context: Context) -> StoredPath:
    """Train a path from A to B.

    Raises:
        StoppedError: If somebody stopped it.
    """
    loaded = load(request.subject, context.store)
    unit = unit_for(loaded.data.train.targets)

    def show(path: Path) -> None:
        context.partial({}, request.encode(StoredPath(_described(path, unit))).meta)

    found = connect(
        loaded.model,
        loaded.params_a,
        aligned_b(loaded, request.alignment, context.store),
        loaded.data.train,
        cast("PathKind", request.kind),
        json.loads(request.options),
        request.seed,
        context.report,
        show,
    )
    if found.stopped:
        show(found)
        raise StoppedError("stopped as asked")
    bends = np.stack([_flat(corner) for corner in found.corners[1:-1]])
    return StoredPath(_described(found, unit), bends, tuple(found.knots))


def _described(path: Path, unit: LossUnit) -> TrainedPath:
    first, last = path.corners[0], path.corners[-1]
    chord = distance(first, last)
    return TrainedPath(
        kind=path.kind,
        history=path.history,
        converged=path.converged,
        stopped=path.stopped,
        seconds=path.seconds,
        bends=len(path.corners) - 2,
        length=path.length / chord,
        distance=off_line(first, last, path.bend) / chord,
        options=path.options,
        seed=path.seed,
        loss_unit=unit,
    )


def _flat(params: Mapping[str, Tensor]) -> np.ndarray:
    """Return all floating tensors end to end, float32 `[n]`."""
    return torch.cat([params[name].reshape(-1) for name in floating(params)]).float().numpy()


def read_path(request: requests.PathRequest, loaded: Loaded, store: Store) -> Path:
    """Return a path that was trained before, with its weights.

    Raises:
        MergingError: If its result is missing.
    """
    (entry,) = request.entries(store)
    if entry is None:
        raise MergingError(f"the result of {request.title.lower()} is missing; run it again")
    stored = request.decode(entry)
    assert stored.bends is not None, "a result has its weights"
    first = loaded.params_a
    names = floating(first)
    sizes = [first[name].numel() for name in names]
    bends: list[Params] = []
    for flat in torch.from_numpy(stored.bends):
        parts = zip(names, flat.split(sizes), strict=True)
        own = {name: part.view(first[name].shape).to(first[name].dtype) for name, part in parts}
        bends.append({**first, **own})
    last = aligned_b(loaded, request.alignment, store)
    kind = cast("PathKind", request.kind)
    return path_of(kind, [first, *bends, last], stored.knots)


def corner_params(point: requests.Corner, loaded: Loaded, store: Store) -> Params:
    """Return the state dict of a point of a plane or a simplex.

    Raises:
        MergingError: If the result that it rests on is missing.
    """
    if isinstance(point, requests.AlignmentRequest):
        return aligned_b(loaded, point, store)
    if isinstance(point, requests.PathRequest):
        return read_path(point, loaded, store).bend
    return loaded.params_a if point == "a" else loaded.params_b


def path_on_plane(path: Path, plane: Plane) -> PlanePath:
    """Return where points of a path lie on a plane.

    Projection is affine, so the points are the path's own mixtures of its projected corners.
    """
    rows = path.weights(np.linspace(0, 1, _DRAWN))
    places = np.array([plane.coordinates(corner) for corner in path.corners])
    off = [
        subtract(corner, plane.point(*place))
        for corner, place in zip(path.corners, places.tolist(), strict=True)
    ]
    gram = np.array([[dot(p, q) for q in off] for p in off])
    squares = np.einsum("ki,ij,kj->k", rows, gram, rows)
    x, y = (rows @ places).T
    return PlanePath(kind=path.kind, x=x, y=y, residual=np.sqrt(np.clip(squares, 0, None)))


def evaluate_path_curve(
    request: requests.PathCurveRequest, part: Part, context: Context
) -> PathCurve:
    """Evaluate the positions of a piece on a trained path."""
    loaded = load(request.subject, context.store)
    path = read_path(request.path, loaded, context.store)
    trained = request.path.read(context.store)
    assert trained is not None, "read just now"
    statistics = loaded.statistics_examples(request.statistics)
    lams = np.array(part["positions"])
    found = evaluate_family(
        loaded.model,
        path.corners,
        path.weights(lams),
        loaded.split(request.split),
        prepare=plane_policy(request.statistics, loaded.model, statistics),
        on_progress=context.report,
    )
    words = statistics_words(request.statistics, len(statistics))
    return PathCurve(trained, curve_of(lams, found, statistics=words, split=request.split))
