"""Tasks around fused models: a common order, scores, scans, mixtures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from merging.files.data.batches import Batches
from merging.landscape import evaluate_family, plane_policy, simplex_points
from merging.landscape.evaluate.calibration import calibrate
from merging.landscape.evaluate.losses import score
from merging.landscape.evaluate.predictions import answers, ensemble, predict
from merging.matching import align_many
from merging.models.state_dict import distance
from merging.results import requests
from merging.results.compute.run_piece import Context
from merging.results.compute.store import Store
from merging.results.tasks.explanations import mismatch_of
from merging.results.tasks.load_family import Members, load_members, ordered
from merging.results.tasks.merged_model import Merged, merge
from merging.results.tasks.task import Part
from merging.results.uploads.load import Stored, certified
from merging.schema.errors import MergingError, StoppedError
from merging.schema.records.common_order import CommonOrder
from merging.schema.records.scores import MergedScore, Mixtures, ScanPoint, TaskScore
from merging.symmetry import certify


def line_up(request: requests.OrderRequest, part: Part, context: Context) -> CommonOrder:
    """Put the models of a family into one order of units.

    Raises:
        MergingError: If what it needs is missing, or the result must not be used.
        StoppedError: If somebody stopped it.
    """
    members = load_members(request.family, context.store)
    _check_widths(request.family)
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
            raise MergingError(
                "a permutation changes the function of its model, so "
                "it is not used; choose another order"
            )
    return CommonOrder(
        permutations=tuple(
            {group: perm.numpy() for group, perm in perms.items()} for perms in found.permutations
        ),
        objective=tuple(found.objective),
        pairwise_cycle_error=found.cycle_error.pairwise,
        cycle_error=found.cycle_error.result,
        seconds=found.seconds,
    )


def _check_widths(family: requests.Family) -> None:
    """Make sure that all models have one width.

    Raises:
        MergingError: If they have not.
    """
    if family.configs:
        raise MergingError(
            "models of different widths have no common order of units, and no mean; fuse them by "
            "optimal transport, which needs neither"
        )


def fuse_and_judge(request: requests.FusionRequest, part: Part, context: Context) -> MergedScore:
    """Fuse models, and judge the result on all tasks."""
    members = load_members(request.family, context.store)
    merged = merge(request, members, context)
    outputs = merged.outputs(members, members.splits(request.split))
    return _judged(request, members, merged, outputs, context.store)


def _judged(
    request: requests.FusionRequest,
    members: Members,
    merged: Merged,
    outputs: Sequence[Tensor],
    store: Store,
) -> MergedScore:
    base = members.base
    return MergedScore(
        name=request.rule,
        tasks=_task_scores(outputs, members.splits(request.split)),
        disagreement=_disagreement(outputs, request.family, request.split, store),
        distances=merged.distances(),
        base_distance=float("nan") if base is None else _distance(merged, base),
        mismatch=_mismatch(request, merged, store),
        seconds=merged.seconds,
        bytes=merged.bytes,
        notes=dict(merged.made.notes),
    )


def _distance(merged: Merged, base: Mapping[str, Tensor]) -> float:
    """Return the distance from the base; NaN of several models with a common trunk."""
    return distance(merged.params, base) if merged.is_one else float("nan")


def _mismatch(request: requests.FusionRequest, merged: Merged, store: Store) -> float:
    """Return one model's gradient mismatch with a base, except while a coefficient is chosen."""
    if not (request.family.base and request.split == "test" and merged.is_one):
        return float("nan")
    return mismatch_of(merged.params, request.family, store)


def _task_scores(outputs: Sequence[Tensor], splits: Sequence[Batches]) -> tuple[TaskScore, ...]:
    return tuple(_task_score(o, b.targets) for o, b in zip(outputs, splits, strict=True))


def _task_score(outputs: Tensor, targets: Tensor) -> TaskScore:
    losses, right = (values.double() for values in score(outputs, targets))
    found = TaskScore(
        examples=len(targets),
        loss=float(losses.mean()),
        loss_error=_error(losses),
        accuracy=float(right.mean()),
        accuracy_error=_error(right),
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
    """Return the share of all tasks' examples that are answered otherwise than by each parent."""
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
    """Return what every model puts out on every task."""
    members = load_members(family, stored.store)
    return [
        [predict(network.model, params, batches) for batches in members.splits(split)]
        for network, params in zip(members.networks, members.models, strict=True)
    ]


def _bytes(params: Mapping[str, Tensor]) -> int:
    return sum(value.nbytes for value in params.values())


def judge_reference(
    request: requests.ReferencesRequest, part: Part, context: Context
) -> MergedScore:
    """Judge one of the models that fused ones are compared with."""
    members, name = load_members(request.family, context.store), part["reference"]
    splits = members.splits(request.split)
    sizes = [_bytes(params) for params in members.models]
    size = sum(sizes)
    if name in ("base", "joint"):
        params = members.base if name == "base" else members.joint
        assert params is not None, f"{name} is asked for where there is one only"
        outputs = [predict(members.model, params, batches) for batches in splits]
        size = sizes[0]
    else:
        parents = _outputs(request.family, request.split, Stored(context.store))
        if name.startswith("model "):
            k = int(name.removeprefix("model "))
            outputs, size = parents[k], sizes[k]
        else:
            outputs = [ensemble(found, name) for found in zip(*parents, strict=True)]
    disagreement = _disagreement(outputs, request.family, request.split, context.store)
    return MergedScore(name, _task_scores(outputs, splits), disagreement, bytes=size)


def judge_value(request: requests.ScanRequest, part: Part, context: Context) -> ScanPoint:
    """Fuse with a coefficient at one value, and judge by no more than a scan shows."""
    value = part["value"]
    chosen = requests.with_knob(request.fusion, request.knob, value)
    members = load_members(chosen.family, context.store)
    merged = merge(chosen, members, context)
    splits = members.splits(chosen.split)
    outputs = merged.outputs(members, splits)
    found = MergedScore(
        chosen.rule,
        _task_scores(outputs, splits),
        mismatch=_mismatch(chosen, merged, context.store),
    )
    return ScanPoint(value, found)


def evaluate_mixtures(request: requests.MixturesRequest, part: Part, context: Context) -> Mixtures:
    """Evaluate weighted means over a grid of shares."""
    members = load_members(request.family, context.store)
    _check_widths(request.family)
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
    return Mixtures(
        steps=steps,
        shares=shares,
        loss=np.stack([one.loss for one in found], axis=1),
        accuracy=np.stack([one.accuracy for one in found], axis=1),
        split=request.split,
    )
