"""Tasks around the models by themselves: files that were uploaded, symmetry, end points."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

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
from merging.results.tasks.task import Part
from merging.results.uploads.keep import (
    keep_arrays,
    keep_checkpoint,
    keep_data,
    keep_spec,
    uploaded,
)
from merging.results.uploads.load import certified, load_params
from merging.schema.errors import SymmetryError
from merging.schema.records.diagnosis import Diagnosis, EndPoint, Forecast
from merging.schema.records.symmetry import SymmetrySummary
from merging.symmetry import certify, summarise


def find_groups(request: requests.SymmetryRequest, part: Part, context: Context) -> SymmetrySummary:
    """Find the permutation groups of an architecture, and certify them."""
    start = time.perf_counter()
    network, spec = certified(request.config, context.store, request.spec)
    certificate = certify(network.model, spec, network.example_inputs, seed=1)
    summary = summarise(spec, certificate, time.perf_counter() - start)
    return replace(summary, spec=spec.to_json())


def prove_spec(request: requests.SpecRequest, part: Part, context: Context) -> requests.ChosenSpec:
    """Prove a spec that a person chose, and keep it.

    Raises:
        SymmetryError: If what was uploaded is not text.
    """
    text = ""
    if request.upload:
        try:
            path = uploaded(request.upload, "the permutation spec", context.store)
            text = path.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise SymmetryError(f"the permutation spec is not UTF-8 text ({error})") from error
    return keep_spec(text, request.config, context.store, freeze=request.frozen)


def evaluate_end_points(
    request: requests.EndPointsRequest, part: Part, context: Context
) -> dict[str, list[EndPoint]]:
    """Evaluate both models on both splits."""
    loaded = load(request.subject, context.store)
    rows: dict[str, list[EndPoint]] = {}
    for letter, params in (("a", loaded.params_a), ("b", loaded.params_b)):
        for split in (loaded.data.train, loaded.data.test):
            found = evaluate(loaded.model, params, split)
            point = EndPoint(
                split=split.name,
                examples=len(split),
                loss=float(found.loss[0]),
                loss_standard_error=float(found.standard_error[0]),
                accuracy=float(found.accuracy[0]),
            )
            rows.setdefault(letter, []).append(point)
    return rows


def diagnose(request: requests.DiagnosisRequest, part: Part, context: Context) -> Diagnosis:
    """Examine two models, and look for a planted permutation."""
    loaded = load(request.subject, context.store)
    network, _ = certified(request.subject.config, context.store)
    return examine(
        network, loaded.spec, loaded.params_a, loaded.params_b, on_progress=context.report
    )


def forecast(request: requests.ForecastRequest, part: Part, context: Context) -> Forecast:
    """Foresee what matching two models will take."""
    subject = request.subject
    loaded = load(subject, context.store)
    params_a, params_b = (
        in_order(load_params(model, context.store), loaded.params_a)
        for model in (subject.model_a, subject.model_b)
    )
    return foresee(loaded.model, loaded.spec, params_a, params_b, loaded.data.test)


def read_checkpoint(
    request: requests.CheckpointRequest, part: Part, context: Context
) -> requests.UploadedCheckpoint:
    """Read, check and keep a checkpoint."""
    architecture = request.architecture
    with _source(request, context) as source:
        return keep_checkpoint(source, request.name, context.store, architecture=architecture)


def read_examples(
    request: requests.DataRequest, part: Part, context: Context
) -> requests.UploadedData:
    """Read, check and keep examples."""
    if request.function:
        found = own_data(request.function)
        return keep_arrays(found, request.name, request.config, context.store)
    with _source(request, context) as source:
        return keep_data(source, request.name, request.config, context.store)


def _source(
    request: requests.CheckpointRequest | requests.DataRequest, context: Context
) -> AbstractContextManager[Path]:
    """Return what was uploaded, to be read while it is held."""
    if request.file:
        return server_folder.opened(request.file)
    return nullcontext(uploaded(request.upload, request.name, context.store))


def compare_tensors(
    request: requests.FitRequest, part: Part, context: Context
) -> list[requests.TensorRow]:
    """Compare the tensors of two checkpoints; what does not fit comes first."""
    params_a, params_b = (
        load_params(model, context.store) for model in (request.model_a, request.model_b)
    )
    rows = [
        _side_by_side(name, params_a.get(name), params_b.get(name))
        for name in dict.fromkeys([*params_a, *params_b])
    ]
    return sorted(rows, key=lambda row: row.verdict != requests.Verdict.DOES_NOT_FIT)


def _side_by_side(name: str, a: Tensor | None, b: Tensor | None) -> requests.TensorRow:
    return requests.TensorRow(
        name=name, shape_a=_shape_words(a), shape_b=_shape_words(b), verdict=_verdict(a, b)
    )


def _verdict(a: Tensor | None, b: Tensor | None) -> requests.Verdict:
    if a is None or b is None or a.shape != b.shape:
        return requests.Verdict.DOES_NOT_FIT
    if a.dtype != b.dtype:
        both = a.is_floating_point() and b.is_floating_point()
        return requests.Verdict.OTHER_PRECISION if both else requests.Verdict.DOES_NOT_FIT
    return requests.Verdict.EQUAL if torch.equal(a, b) else requests.Verdict.FITS


def _shape_words(value: Tensor | None) -> str:
    if value is None:
        return "missing"
    return (
        f"{' × '.join(map(str, value.shape)) or 'scalar'} {str(value.dtype).removeprefix('torch.')}"
    )
