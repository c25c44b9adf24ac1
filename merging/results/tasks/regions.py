"""Tasks of regions around models: simplexes, and posterior samples."""

from __future__ import annotations

import json
import time

import numpy as np
import torch

from merging.files.checkpoints.lazy_params import Params
from merging.landscape import (
    Plane,
    check_corners,
    collect_swag,
    evaluate,
    evaluate_family,
    has_batch_norm,
    new_simplex_points,
    plane_policy,
    plane_through,
    reset,
)
from merging.results import requests
from merging.results.compute.run_piece import Context
from merging.results.requests.simplex import SIMPLEX_LEVELS
from merging.results.tasks.load_pair import load
from merging.results.tasks.path import corner_params
from merging.results.tasks.task import Part, statistics_words
from merging.schema.errors import StoppedError
from merging.schema.records.simplex import SimplexLoss
from merging.schema.records.surface import PlanePoint
from merging.schema.records.swag import SwagSamples


def evaluate_mixtures(
    request: requests.SimplexRequest, part: Part, context: Context
) -> SimplexLoss:
    """Evaluate the points of a piece of a simplex."""
    loaded = load(request.subject, context.store)
    statistics = loaded.statistics_examples(request.statistics)
    corners = [corner_params(point, loaded, context.store) for point in request.points]
    check_corners(corners)
    fresh = new_simplex_points(part["level"], len(corners))[part["start"] : part["stop"]]
    batches = loaded.split(request.split)
    found = evaluate_family(
        loaded.model,
        corners,
        fresh,
        batches,
        prepare=plane_policy(request.statistics, loaded.model, statistics),
        on_progress=context.report,
    )
    return SimplexLoss(
        names=request.names,
        weights=fresh,
        loss=found.loss,
        accuracy=found.accuracy,
        standard_error=found.standard_error,
        resolution=SIMPLEX_LEVELS[part["level"]],
        split=request.split,
        examples=len(batches),
        statistics=statistics_words(request.statistics, len(statistics)),
    )


def sample_swag(request: requests.SwagRequest, part: Part, context: Context) -> SwagSamples:
    """Collect SWAG around one model, and evaluate its samples.

    Raises:
        StoppedError: If somebody stopped it.
    """
    start = time.perf_counter()
    loaded = load(request.subject, context.store)
    options = json.loads(request.options)
    point = request.around[part["model"]]
    plane = plane_through(*(corner_params(p, loaded, context.store) for p in request.plane))
    found = collect_swag(
        loaded.model,
        corner_params(point, loaded, context.store),
        loaded.data.train,
        options,
        request.seed,
        context.report,
    )
    if found.stopped:
        raise StoppedError("stopped as asked")
    few = (
        loaded.statistics_examples("reset")
        if has_batch_norm(loaded.model, loaded.data.train.take(2))
        else None
    )
    generator = torch.Generator().manual_seed(request.seed)
    points, values = [], []
    batches = loaded.split(request.split)
    for k in range(options["samples"]):
        params = found.sample(generator)
        params = params if few is None else reset(loaded.model, params, few)
        alone = evaluate(loaded.model, params, batches)
        values.append((float(alone.loss[0]), float(alone.accuracy[0])))
        points.append(_projected(f"sample {k + 1}", params, plane))
        context.report(k + 1, options["samples"], "samples evaluated")
    loss, accuracy = np.array(values).T
    return SwagSamples(
        around=requests.corner_names([point])[0],
        points=tuple(points),
        loss=loss,
        accuracy=accuracy,
        mean=_projected("mean", found.mean, plane),
        snapshots=found.snapshots,
        seconds=time.perf_counter() - start,
        split=request.split,
        examples=len(batches),
        statistics="interpolated" if few is None else statistics_words("reset", len(few)),
    )


def _projected(name: str, params: Params, plane: Plane) -> PlanePoint:
    x, y = plane.coordinates(params)
    return PlanePoint(name=name, x=x, y=y, residual=plane.residual(params))
