"""Tasks around fused models: a common order, scores, scans, mixtures, files."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from merging import requests
from merging.checkpoints import checkpoint_bytes
from merging.data.base import Batches
from merging.errors import MergingError, StoppedError
from merging.fusion import fuse_with_notes, gram_matrices
from merging.fusion.model_card import write_card
from merging.fusion_records import MergedScore, TaskScore
from merging.jobs import Context
from merging.landscape import evaluate_family, plane_policy, reset, simplex_points
from merging.landscape.predictions import answers, calibrate, ensemble, predict
from merging.landscape.scores import score
from merging.matching import align_many
from merging.members import Members, load_members, ordered
from merging.params import Params, distance
from merging.store import Store
from merging.subjects import Stored, certified
from merging.symmetry import certify
from merging.tasks.base import Found, Part, Task
from merging.tasks.curvatures import scaled_fishers
from merging.tasks.explanations import mismatch_of
from merging.tasks.ways import WAYS
from merging.ways import WAY_CARDS, find_way


def _order(request: requests.OrderRequest, part: Part, context: Context) -> Found:
    members = load_members(request.family, context.store)
    network, spec = certified(request.family.config, context.store)
    found = align_many(
        spec,
        network.model,
        members.models,
        request.kind,
        seed=request.seed,
        on_progress=context.report,
    )
    if found.stopped:
        raise StoppedError("stopped as asked")
    for perms in found.permutations[1:]:
        certificate = certify(network.model, spec, network.example_inputs, permutations=perms)
        if not certificate.ok:
            raise MergingError("a permutation changes the function of its model; it is not used")
    groups = list(found.permutations[0])
    arrays = {
        f"m{model}p{k}": perms[group].numpy()
        for model, perms in enumerate(found.permutations)
        for k, group in enumerate(groups)
    }
    return arrays, {
        "groups": groups,
        "models": len(found.permutations),
        "objective": list(found.objective),
        "pairwise_cycle_error": found.cycle_error.pairwise,
        "cycle_error": found.cycle_error.result,
        "seconds": found.seconds,
    }


@dataclass(frozen=True)
class _Merged:
    """A fused model, its parents as they went in, and how long it took."""

    params: Params
    notes: Mapping[str, Any]
    parents: Sequence[Mapping[str, Tensor]]
    seconds: float


def _merge(request: requests.FusionRequest, members: Members, context: Context) -> _Merged:
    card = find_way(request.rule)
    lacking = requests.lacking(card, request.family, request.moments)
    if lacking:
        raise MergingError(f"{card.title} {lacking}; these {len(members.models)} models cannot")
    parents = ordered(members.models, request.order, context.store)
    start = time.perf_counter()
    if request.rule in WAY_CARDS:
        found = WAYS[request.rule](request, members, parents, context)
    else:
        needs = _needs(request, members, parents, context.store)
        start = time.perf_counter()  # what a rule needs was not made by the rule
        found = fuse_with_notes(
            request.rule,
            models=parents,
            base=members.base,
            weights=request.weights or None,
            options=json.loads(request.options),
            seed=request.seed,
            **needs,
        )
    seconds = time.perf_counter() - start
    params = found.params
    if request.statistics == "reset":
        examples = members.training_examples(requests.SHOWN_EXAMPLES)
        params = reset(members.model, params, examples)
    return _Merged(params, found.notes, parents, seconds)


def _needs(
    request: requests.FusionRequest, members: Members, parents: Sequence[Params], store: Store
) -> dict[str, Any]:
    """What a rule works with beside the models."""
    card = find_way(request.rule)
    needs: dict[str, Any] = {}
    if card.needs_fishers:
        needs["fishers"], needs["base_fisher"] = scaled_fishers(request, members, store)
    if card.needs_grams:
        needs["grams"] = [
            gram_matrices(
                members.model,
                params,
                members.own_data(k).train,
                examples=requests.CURVATURE_EXAMPLES,
            )
            for k, params in enumerate(parents)
        ]
    if card.needs_data:
        needs |= {"model": members.model, "batches": members.validation()}
    if card.needs_sizes:
        needs["sizes"] = members.sizes
    return needs


def _fusion(request: requests.FusionRequest, part: Part, context: Context) -> Found:
    members = load_members(request.family, context.store)
    merged = _merge(request, members, context)
    outputs = [predict(members.model, merged.params, b) for b in members.splits(request.split)]
    return {}, {"score": asdict(_judged(request, members, merged, outputs, context.store))}


def _judged(
    request: requests.FusionRequest,
    members: Members,
    merged: _Merged,
    outputs: Sequence[Tensor],
    store: Store,
) -> MergedScore:
    base = members.base
    return MergedScore(
        request.rule,
        _task_scores(outputs, members.splits(request.split)),
        _disagreement(outputs, request.family, request.split, store),
        tuple(distance(merged.params, parent) for parent in merged.parents),
        float("nan") if base is None else distance(merged.params, base),
        _mismatch(request, merged, store),
        seconds=merged.seconds,
        bytes=_bytes(merged.params),
        notes=dict(merged.notes),
    )


def _mismatch(request: requests.FusionRequest, merged: _Merged, store: Store) -> float:
    """Gradient mismatch, where there is a base; while a coefficient is chosen it is not asked."""
    if not request.family.base or request.split != "test":
        return float("nan")
    return mismatch_of(merged.params, request.family, store)


def _task_scores(outputs: Sequence[Tensor], splits: Sequence[Batches]) -> tuple[TaskScore, ...]:
    return tuple(_task_score(o, b.targets) for o, b in zip(outputs, splits, strict=True))


def _task_score(outputs: Tensor, targets: Tensor) -> TaskScore:
    losses, right = (values.double() for values in score(outputs, targets))
    found = TaskScore(
        len(targets), float(losses.mean()), _error(losses), float(right.mean()), _error(right)
    )
    if targets.dim() != 1 or targets.is_floating_point():
        return found
    sure = calibrate(outputs, targets)
    return replace(
        found,
        calibration_error=sure.error,
        confidences=tuple(sure.confidences.tolist()),
        rights=tuple(sure.rights.tolist()),
        counts=tuple(sure.counts.tolist()),
    )


def _error(values: Tensor) -> float:
    return float(values.std() / len(values) ** 0.5)


def _disagreement(
    outputs: Sequence[Tensor], family: requests.Family, split: str, store: Store
) -> tuple[float, ...]:
    """Share of all tasks' examples that are answered otherwise than by each parent."""
    if outputs[0].dim() != 2 or outputs[0].is_complex():
        return ()
    own = torch.cat([answers(found) for found in outputs])
    parents = _outputs(family, split, Stored(store))
    return tuple(
        float((own != torch.cat([answers(found) for found in parent])).double().mean())
        for parent in parents
    )


@lru_cache(maxsize=2)
def _outputs(family: requests.Family, split: str, stored: Stored) -> list[list[Tensor]]:
    """What every model puts out on every task."""
    members = load_members(family, stored.store)
    return [
        [predict(members.model, params, batches) for batches in members.splits(split)]
        for params in members.models
    ]


def _bytes(params: Mapping[str, Tensor]) -> int:
    return sum(value.nbytes for value in params.values())


def _references(request: requests.ReferencesRequest, part: Part, context: Context) -> Found:
    members, name = load_members(request.family, context.store), part["reference"]
    splits = members.splits(request.split)
    size = _bytes(members.models[0])
    if name in ("base", "joint"):
        params = members.base if name == "base" else members.joint
        assert params is not None, f"{name} is asked for where there is one only"
        outputs = [predict(members.model, params, batches) for batches in splits]
    else:
        parents = _outputs(request.family, request.split, Stored(context.store))
        if name.startswith("model "):
            outputs = parents[int(name.removeprefix("model "))]
        else:
            outputs = [ensemble(found, name) for found in zip(*parents, strict=True)]
            size *= len(parents)
    disagreement = _disagreement(outputs, request.family, request.split, context.store)
    found = MergedScore(name, _task_scores(outputs, splits), disagreement, bytes=size)
    return {}, {"score": asdict(found)}


def _scan(request: requests.ScanRequest, part: Part, context: Context) -> Found:
    """Fuse at one value, and judge by no more than a scan shows."""
    value = part["value"]
    chosen = requests.with_knob(request.fusion, request.knob, value)
    members = load_members(chosen.family, context.store)
    merged = _merge(chosen, members, context)
    splits = members.splits(chosen.split)
    outputs = [predict(members.model, merged.params, batches) for batches in splits]
    found = MergedScore(
        chosen.rule,
        _task_scores(outputs, splits),
        mismatch=_mismatch(chosen, merged, context.store),
    )
    return {}, {"value": value, "score": asdict(found)}


def _mixtures(request: requests.MixturesRequest, part: Part, context: Context) -> Found:
    members = load_members(request.family, context.store)
    parents = ordered(members.models, request.order, context.store)
    steps = request.steps()
    shares = simplex_points(steps, len(parents))
    prepare = None
    if request.statistics == "reset":
        examples = members.training_examples(requests.SHOWN_EXAMPLES)
        prepare = plane_policy("reset", members.model, examples)
    splits = members.splits(request.split)
    found = [
        evaluate_family(
            members.model,
            parents,
            shares,
            batches,
            prepare=prepare,
            on_progress=lambda done, total, note, k=k: context.report(  # type: ignore[misc]
                k * total + done, len(splits) * total, note
            ),
        )
        for k, batches in enumerate(splits)
    ]
    return {
        "shares": shares,
        "loss": np.stack([one.loss for one in found], axis=1),
        "accuracy": np.stack([one.accuracy for one in found], axis=1),
    }, {"steps": steps, "split": request.split}


def _export(request: requests.FusionExportRequest, part: Part, context: Context) -> Found:
    """Write the merged model in the types of the first one that was brought."""
    fusion = request.fusion
    members = load_members(fusion.family, context.store)
    merged = _merge(fusion, members, context)
    params = {name: value.to(members.dtypes[name]) for name, value in merged.params.items()}
    recipe = requests.canonical(fusion.payload)
    meta = {"made_by": "One Basin", "what": "merged", "recipe": recipe}
    data, stem = checkpoint_bytes(params, meta), f"merged-{fusion.rule}-{request.key[:8]}"
    notes = [f"{len(params)} tensors, {sum(v.numel() for v in params.values()):,} numbers"]
    name = f"{stem}.safetensors"
    if request.what == "folder":
        made = {
            "rule": fusion.rule,
            "models": fusion.family.models,
            "base": fusion.family.base,
            "weights": fusion.weights,
            "options": json.loads(fusion.options),
            "order": "as they are" if fusion.order is None else fusion.order.kind,
            "statistics": fusion.statistics,
            "seed": fusion.seed,
            "curvature": "" if fusion.moments is None else "optimizer",
            "moment_scale": None if fusion.moments is None else fusion.moments.scale,
        }
        name, data = f"{stem}.zip", _zipped(data, write_card(made, merged.notes), recipe)
    return {"data": np.frombuffer(data, dtype=np.uint8)}, {"name": name, "notes": notes}


def _zipped(weights: bytes, card: str, recipe: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model.safetensors", weights)
        archive.writestr("README.md", card)
        archive.writestr("recipe.json", recipe)
    return file.getvalue()


TASKS: Mapping[str, Task] = MappingProxyType({
    "order": _order,
    "fusion": _fusion,
    "references": _references,
    "scan": _scan,
    "mixtures": _mixtures,
    "fusion export": _export,
})
