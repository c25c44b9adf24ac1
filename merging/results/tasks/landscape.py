"""Tasks of the landscape: curves between models, and surfaces through them."""

from __future__ import annotations

import numpy as np
import torch

from merging.landscape import (
    LEVELS,
    Plane,
    curve_of,
    evaluate_family,
    evaluate_points,
    filter_normalized_plane,
    grid_axes,
    line_policy,
    new_points,
    plane_policy,
    plane_through,
    strip_axes,
)
from merging.results import requests
from merging.results.compute.run_piece import Context
from merging.results.compute.store import Store
from merging.results.tasks.load_pair import Loaded, load
from merging.results.tasks.path import corner_params, path_on_plane, read_path
from merging.results.tasks.task import Part, aligned_b, statistics_words
from merging.schema.records.curve import Curve
from merging.schema.records.surface import PlanePoint, SurfaceModels, SurfacePoints


def evaluate_curve(request: requests.CurveRequest, part: Part, context: Context) -> Curve:
    """Evaluate the positions of a piece on the line."""
    loaded = load(request.subject, context.store)
    params_b = aligned_b(loaded, request.alignment, context.store)
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
    words = statistics_words(request.statistics, len(statistics))
    return curve_of(lams, found, statistics=words, split=request.split)


def evaluate_surface(
    request: requests.SurfaceRequest, part: Part, context: Context
) -> SurfaceModels | SurfacePoints:
    """Project the models on the plane, or evaluate some points of it."""
    loaded = load(request.subject, context.store)
    plane = _plane(request, loaded, context.store)
    if "models" in part:
        return _shown(request, plane, loaded, context.store)
    level = part["level"]
    cells = np.argwhere(new_points(level))[part["start"] : part["stop"]]
    axes = strip_axes if isinstance(request.points[-1], requests.PathRequest) else grid_axes
    x, y = axes(plane, LEVELS[level], request.margin)
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
    return SurfacePoints(
        cells=cells.T.astype(np.int16),
        values=values.astype(np.float32),
        level=level,
        x=(float(x[0]), float(x[-1])),
        y=(float(y[0]), float(y[-1])),
        scale=plane.corners[1][0] if plane.orthonormal else 1.0,
        examples=len(batches),
        statistics=statistics_words(request.statistics, len(statistics)),
    )


def _plane(request: requests.SurfaceRequest, loaded: Loaded, store: Store) -> Plane:
    models = [corner_params(point, loaded, store) for point in request.points]
    if len(models) == 1:
        return filter_normalized_plane(models[0], torch.Generator().manual_seed(request.seed))
    return plane_through(*models)


def _shown(
    request: requests.SurfaceRequest, plane: Plane, loaded: Loaded, store: Store
) -> SurfaceModels:
    every = (*request.points, *request.shown)
    points = {}
    for point, name in zip(every, requests.corner_names(every), strict=True):
        params = corner_params(point, loaded, store)
        x, y = plane.coordinates(params)
        points[name] = PlanePoint(name=name, x=x, y=y, residual=plane.residual(params))
    paths = {p.key: p for p in every if isinstance(p, requests.PathRequest)}.values()
    return SurfaceModels(
        tuple(points.values()),
        tuple(path_on_plane(read_path(path, loaded, store), plane) for path in paths),
    )
