"""Tasks of regions around models: simplexes, and posterior samples."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from merging.files.checkpoints.lazy_params import Params
from merging.files.data.batches import Batches
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
from merging.landscape.evaluate.evaluation import Prepare
from merging.results import requests
from merging.results.compute.run_piece import Context
from merging.results.tasks.load_pair import load
from merging.results.tasks.path import corner_params
from merging.results.tasks.task import Found, Part, Task, statistics_words
from merging.schema.errors import StoppedError
from merging.schema.records.surface import PlanePoint


def _simplex(request: requests.SimplexRequest, part: Part, context: Context) -> Found:
    loaded = load(request.subject, context.store)
    statistics = loaded.statistics_examples(request.statistics)
    arrays, meta = simplex_piece(
        loaded.model,
        [corner_params(point, loaded, context.store) for point in request.points],
        loaded.split(request.split),
        part,
        context,
        plane_policy(request.statistics, loaded.model, statistics),
    )
    words = statistics_words(request.statistics, len(statistics))
    return arrays, {**meta, "split": request.split, "statistics": words}


def simplex_piece(
    model: nn.Module,
    corners: Sequence[Mapping[str, Tensor]],
    batches: Batches,
    part: Part,
    context: Context,
    prepare: Prepare | None = None,
) -> Found:
    """A piece of a simplex, whatever its corners are, for `requests.read_simplex`.

    Args:
        model: The architecture.
        corners: State dicts.
        batches: Examples.
        part: One of `requests.simplex_parts`.
        context: Whom to tell about progress.
        prepare: As of `evaluate_family`.

    Returns:
        The losses, and the number of examples; the caller adds `split` and `statistics`.

    Raises:
        MergingError: If there are fewer than three models, or they do not fit.
    """
    check_corners(corners)
    fresh = new_simplex_points(part["level"], len(corners))[part["start"] : part["stop"]]
    found = evaluate_family(
        model, corners, fresh, batches, prepare=prepare, on_progress=context.report
    )
    values = np.stack([found.loss, found.accuracy, found.standard_error])
    return {"weights": fresh, "values": values}, {"examples": len(batches)}


def _swag(request: requests.SwagRequest, part: Part, context: Context) -> Found:
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
        points.append(asdict(_projected(f"sample {k + 1}", params, plane)))
        context.report(k + 1, options["samples"], "samples evaluated")
    loss, accuracy = np.array(values).T
    described: dict[str, Any] = {
        "around": requests.corner_names([point])[0],
        "points": points,
        "mean": asdict(_projected("mean", found.mean, plane)),
        "snapshots": found.snapshots,
        "seconds": time.perf_counter() - start,
        "split": request.split,
        "examples": len(batches),
        "statistics": "interpolated" if few is None else statistics_words("reset", len(few)),
    }
    return {"loss": loss, "accuracy": accuracy}, described


def _projected(name: str, params: Params, plane: Plane) -> PlanePoint:
    return PlanePoint(name, *plane.coordinates(params), plane.residual(params))


TASKS: Mapping[str, Task] = MappingProxyType({"simplex": _simplex, "swag": _swag})
