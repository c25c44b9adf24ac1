"""Tasks around an alignment: the permutation, its units and layers, files of it."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import torch
from torch import Tensor

from merging.files.checkpoints.write import checkpoint_bytes
from merging.landscape import layer_barriers, layer_distances, repair, variance_ratios
from merging.landscape.evaluate.losses import unit_for
from merging.matching import MatchProblem, MatchResult, describe_units, match
from merging.models.dtypes import form_notes, in_form
from merging.models.state_dict import distance, lerp
from merging.results import requests
from merging.results.compute.run_piece import Context
from merging.results.compute.store import Store
from merging.results.requests.alignment import Download
from merging.results.tasks.load_pair import Loaded, load
from merging.results.tasks.task import Part, aligned_b, permutations_of, to_arrays, to_tensors
from merging.results.uploads.load import load_params
from merging.schema.cards.titles import NAIVE
from merging.schema.errors import MergingError, StoppedError
from merging.schema.records.alignment import Alignment, GroupUnits, LayerRow
from merging.symmetry import certify


def align(request: requests.AlignmentRequest, part: Part, context: Context) -> Alignment:
    """Find the permutation of model B, and certify it.

    Raises:
        StoppedError: If somebody stopped it.
    """
    loaded = load(request.subject, context.store)

    def show(result: MatchResult, difference: float = float("nan")) -> None:
        entry = request.encode(_record(result, difference))
        context.partial(entry.arrays, entry.meta)

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
        on_partial=show,
        on_state=lambda state: context.keep_state(lambda: to_arrays(state())),
        state=to_tensors(context.kept_state()),
    )
    if found.stopped:
        context.flush_state()  # first: what follows may take longer than a piece has to stop
        # What was found stays visible, but is not taken for the method's own result.
        show(found, _certified_difference(loaded, request, found))
        raise StoppedError("stopped as asked")
    return _record(found, _certified_difference(loaded, request, found))


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
            "it is not used. Choose another method or permutation spec"
        )
    return certificate.max_relative_difference


def _record(found: MatchResult, difference: float) -> Alignment:
    return Alignment(
        method=found.method,
        permutations={group: perm.numpy() for group, perm in found.permutations.items()},
        objective=tuple(found.objective),
        objective_name=found.objective_name,
        converged=found.converged,
        stopped=found.stopped,
        seconds=found.seconds,
        restarts=tuple(found.restarts),
        options=found.options,
        seed=found.seed,
        max_relative_difference=difference,
    )


def compare_units(request: requests.UnitsRequest, part: Part, context: Context) -> list[GroupUnits]:
    """Compare the units of every group, before and after alignment."""
    loaded = load(request.subject, context.store)
    problem = MatchProblem(
        model=loaded.model, spec=loaded.spec, params_a=loaded.params_a, params_b=loaded.params_b
    )
    return describe_units(problem, permutations_of(request.alignment, context.store))


def compare_layers(request: requests.LayersRequest, part: Part, context: Context) -> list[LayerRow]:
    """Compare the two models layer by layer, before and after alignment."""
    loaded = load(request.subject, context.store)
    aligned = aligned_b(loaded, request.alignment, context.store)
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
    return [
        LayerRow(
            layer=layer,
            distance_before=columns[0][layer][0],
            distance_after=columns[3][layer][0],
            cosine_before=columns[0][layer][1],
            cosine_after=columns[3][layer][1],
            barrier_before=columns[1][layer],
            barrier_after=columns[4][layer],
            variance_before=columns[2].get(layer, missing),
            variance_after=columns[5].get(layer, missing),
            loss_unit=unit_for(batches.targets),
        )
        for layer in columns[0]
    ]


def write_file(request: requests.ExportRequest, part: Part, context: Context) -> Download:
    """Write the permutation, or the aligned or merged model, as a file.

    Raises:
        MergingError: If what it needs is missing, or the result must not be used.
    """
    loaded = load(request.subject, context.store)
    method = NAIVE if request.alignment is None else request.alignment.method
    stem = f"{request.subject.model_a[:8]}-{request.subject.model_b[:8]}-{method}"
    notes: list[str] = []
    if request.what == "permutation":
        if request.alignment is None:
            raise MergingError("there is no permutation without a matching method; choose one")
        data, name = _permutation_file(request.alignment, context.store), f"{stem}.npz"
    else:
        aligned = aligned_b(loaded, request.alignment, context.store)
        params = aligned if request.what == "aligned" else _merged(request, loaded, aligned)
        meta = {
            "made_by": "One Basin",
            "what": request.what,
            "recipe": requests.canonical(request.payload),
        }
        moved = distance(loaded.params_a, params)
        notes.append(f"{len(params)} tensors, {moved:.4g} from model A in weight space")
        params, more = _as_uploaded(params, request, context.store)
        notes += more
        data = _model_file(params, meta, request.container)
        name = f"{stem}-{request.what}.{request.container}"
    return Download(name, data, tuple(notes))


def _as_uploaded(
    params: dict[str, Tensor], request: requests.ExportRequest, store: Store
) -> tuple[dict[str, Tensor], list[str]]:
    """Return a model in the form of the file that it comes from, and notes for the reader."""
    subject = request.subject
    parent = load_params(subject.model_b if request.what == "aligned" else subject.model_a, store)
    dtypes = {name: value.dtype for name, value in parent.items()}
    return in_form(params, dtypes, request.prefix), form_notes(dtypes, request.prefix)


def _model_file(params: dict[str, Tensor], meta: dict[str, str], container: str) -> bytes:
    if container == "safetensors":
        return checkpoint_bytes(params, meta)
    file = io.BytesIO()
    torch.save({name: value.clone() for name, value in params.items()}, file)
    return file.getvalue()


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
    perms = {group: perm.numpy() for group, perm in permutations_of(alignment, store).items()}
    np.savez_compressed(file, **perms)  # type: ignore[arg-type]
    return file.getvalue()
