"""Tasks around the models by themselves: files that were brought, symmetry, end points."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from merging.files import server_folder
from merging.files.data.user_data import own_data
from merging.landscape import evaluate
from merging.matching.checks.diagnosis import examine
from merging.matching.checks.forecast import foresee
from merging.models.state_dict import in_order
from merging.results import requests
from merging.results.compute.run_piece import Context
from merging.results.tasks.load_pair import load
from merging.results.tasks.task import Found, Part, Task
from merging.results.uploads.keep import (
    keep_arrays,
    keep_checkpoint,
    keep_data,
    keep_spec,
    uploaded,
)
from merging.results.uploads.load import certified, load_params
from merging.schema.errors import SymmetryError
from merging.schema.records.diagnosis import EndPoint
from merging.symmetry import certify, summarise


def _symmetry(request: requests.SymmetryRequest, part: Part, context: Context) -> Found:
    start = time.perf_counter()
    network, spec = certified(request.config, context.store, request.spec)
    certificate = certify(network.model, spec, network.example_inputs, seed=1)
    summary = summarise(spec, certificate, time.perf_counter() - start)
    return {}, {"summary": asdict(summary), "spec": spec.to_json()}


def _spec(request: requests.SpecRequest, part: Part, context: Context) -> Found:
    text = ""
    if request.upload:
        try:
            path = uploaded(request.upload, "the permutation spec", context.store)
            text = path.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise SymmetryError(f"the permutation spec is no text ({error})") from error
    return {}, keep_spec(text, request.config, context.store, freeze=request.frozen)


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


def _forecast(request: requests.ForecastRequest, part: Part, context: Context) -> Found:
    subject = request.subject
    loaded = load(subject, context.store)
    params_a, params_b = (
        in_order(load_params(model, context.store), loaded.params_a)
        for model in (subject.model_a, subject.model_b)
    )
    found = foresee(loaded.model, loaded.spec, params_a, params_b, loaded.data.test)
    return {}, asdict(found)


def _read_checkpoint(request: requests.CheckpointRequest, part: Part, context: Context) -> Found:
    architecture = request.architecture
    with _source(request, context) as source:
        return {}, keep_checkpoint(source, request.name, context.store, architecture=architecture)


def _read_data(request: requests.DataRequest, part: Part, context: Context) -> Found:
    if request.function:
        found = own_data(request.function)
        return {}, keep_arrays(found, request.name, request.config, context.store)
    with _source(request, context) as source:
        return {}, keep_data(source, request.name, request.config, context.store)


def _source(
    request: requests.CheckpointRequest | requests.DataRequest, context: Context
) -> AbstractContextManager[Path]:
    """What was brought, to be read while it is held."""
    if request.file:
        return server_folder.opened(request.file)
    return nullcontext(uploaded(request.upload, request.name, context.store))


def _fit(request: requests.FitRequest, part: Part, context: Context) -> Found:
    params_a, params_b = (
        load_params(model, context.store) for model in (request.model_a, request.model_b)
    )
    rows = [
        asdict(requests.TensorRow(name, *_side_by_side(params_a.get(name), params_b.get(name))))
        for name in dict.fromkeys([*params_a, *params_b])
    ]
    rows.sort(key=lambda row: row["verdict"] != "does not fit")
    return {}, {"rows": rows}


def _side_by_side(a: Tensor | None, b: Tensor | None) -> tuple[str, str, str]:
    if a is None or b is None or a.shape != b.shape:
        verdict = "does not fit"
    elif a.dtype != b.dtype:
        both = a.is_floating_point() and b.is_floating_point()
        verdict = "fits, in another precision" if both else "does not fit"
    else:
        verdict = "equal values" if torch.equal(a, b) else "fits"
    return _shape_words(a), _shape_words(b), verdict


def _shape_words(value: Tensor | None) -> str:
    if value is None:
        return "missing"
    return (
        f"{' × '.join(map(str, value.shape)) or 'scalar'} {str(value.dtype).removeprefix('torch.')}"
    )


TASKS: Mapping[str, Task] = MappingProxyType({
    "symmetry": _symmetry,
    "spec": _spec,
    "end points": _end_points,
    "diagnosis": _diagnosis,
    "forecast": _forecast,
    "read checkpoint": _read_checkpoint,
    "read data": _read_data,
    "fit": _fit,
})
