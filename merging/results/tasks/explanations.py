"""Tasks that say why a merge is as good as it is: gradients, task vectors, implied weights."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from torch import Tensor

from merging.files.checkpoints.lazy_params import Params
from merging.files.data.batches import Batches, concatenate
from merging.fusion import diagonal_fisher, fuse, on_sum_scale, remove_task
from merging.fusion.explain.mismatch import decompose_error, gradient_mismatch, loss_gradient
from merging.fusion.explain.task_vectors import (
    compare_by_tensor,
    compare_task_vectors,
    weight_histogram,
)
from merging.fusion.problem import FusionProblem
from merging.landscape import evaluate
from merging.models.zoo.training import Recipe, train
from merging.results import requests
from merging.results.compute.run_piece import Context
from merging.results.compute.store import Store
from merging.results.tasks.curvature import scaled_fishers
from merging.results.tasks.load_family import Members, load_members
from merging.results.tasks.task import Part
from merging.results.uploads.load import Stored, data_of
from merging.schema.errors import MergingError
from merging.schema.records.explanations import (
    ImpliedWeights,
    Removal,
    TaskVectorSummary,
    TensorErrors,
)


def mismatch_of(merged: Mapping[str, Tensor], family: requests.Family, store: Store) -> float:
    """Return the gradient mismatch of a merged model; NaN where tasks or classes are not known.

    Args:
        merged: State dict.
        family: The models that it was made of.
        store: Where uploaded models are.

    Returns:
        The length of the sum over the models' training examples, as many as are looked at, on the
        scale of all of them.
    """
    members = load_members(family, store)
    if not members.tasks or min(family.trained_on, default=-1) < 0:
        return math.nan
    targets = members.tasks[0].train.targets
    if targets.is_floating_point() or targets.dim() != 1:
        return math.nan
    at_merged = _gradients(members, [merged] * len(members.models))
    return gradient_mismatch(at_merged, _own_gradients(family, Stored(store))).norm


@lru_cache(maxsize=2)
def _own_gradients(family: requests.Family, stored: Stored) -> list[Params]:
    """Return every model's gradient on its own task."""
    members = load_members(family, stored.store)
    return _gradients(members, members.models)


def _gradients(members: Members, states: Sequence[Mapping[str, Tensor]]) -> list[Params]:
    """Return the gradient of each task's summed loss, each at its state."""
    found = []
    for k, state in enumerate(states):
        train = members.own_data(k).train
        some = train.take(requests.MISMATCH_EXAMPLES)
        gradient = loss_gradient(members.model, state, some)
        found.append({n: g * (len(train) / len(some)) for n, g in gradient.items()})
    return found


def compare_vectors(
    request: requests.TaskVectorsRequest, part: Part, context: Context
) -> TaskVectorSummary:
    """Compare the task vectors of a family.

    Raises:
        MergingError: If what it needs is missing, or the result must not be used.
    """
    members = load_members(request.family, context.store)
    if members.base is None:
        raise MergingError(
            "task vectors are steps from a base, and these models have none; give one"
        )
    whole = compare_task_vectors(members.base, members.models)
    by_tensor = compare_by_tensor(members.base, members.models)
    parts = np.stack([found.norms**2 for found in by_tensor.values()], axis=1)
    total = np.maximum(parts.sum(1, keepdims=True), np.finfo(float).tiny)
    return TaskVectorSummary(
        norms=whole.norms,
        cosines=whole.cosines,
        conflicts=whole.conflicts,
        any_conflict=whole.any_conflict,
        tensors=tuple(by_tensor),
        contributions=parts / total,
    )


def count_weights(
    request: requests.ImpliedWeightsRequest, part: Part, context: Context
) -> ImpliedWeights:
    """Count the weights that gradient matching gives to single entries."""
    fusion = request.fusion
    members = load_members(fusion.family, context.store)
    fishers, base_fisher = scaled_fishers(fusion, members, context.store)
    weights = fusion.weights or (1.0,) * len(members.models)
    trained = {name for name, _ in members.model.named_parameters(remove_duplicate=False)}
    problem = FusionProblem(
        models=members.models,
        base=members.base,
        weights=weights,
        fishers=[{n: f[n] for n in f if n in trained} for f in fishers],
        base_fisher=base_fisher,
    )
    found = weight_histogram(problem)
    return ImpliedWeights(edges=found.edges, counts=found.counts, means=found.means)


def split_errors(
    request: requests.ErrorsRequest, part: Part, context: Context
) -> list[TensorErrors]:
    """Split what sets two rules apart from the joint model.

    Raises:
        MergingError: If what it needs is missing, or the result must not be used.
    """
    fusion = request.fusion
    members = load_members(fusion.family, context.store)
    if members.base is None or members.joint is None:
        raise MergingError("the error is measured against a joint model, and there is none")
    fishers, base_fisher = scaled_fishers(fusion, members, context.store)
    assert base_fisher is not None, "the rule asks for the base's curvature"
    at_joint = _gradients(members, [members.joint] * len(members.models))
    rows = []
    for rule, curvatures in (("task_arithmetic", None), ("gradient_matching", fishers)):
        found = decompose_error(
            base=members.base,
            models=members.models,
            joint=members.joint,
            base_curvature=base_fisher,
            at_joint=at_joint,
            at_models=_own_gradients(fusion.family, Stored(context.store)),
            weights=fusion.weights or None,
            curvatures=curvatures,
            delta=requests.PRIOR_PRECISION,
        )
        rows += [
            TensorErrors(
                rule=rule,
                tensor=name,
                measured=e.measured,
                predicted=e.predicted,
                residual=e.residual,
                bound=e.bound,
            )
            for name, e in found.items()
        ]
    return rows


def take_out_task(request: requests.RemovalRequest, part: Part, context: Context) -> list[Removal]:
    """Take one task out of the joint model again.

    Raises:
        MergingError: If what it needs is missing, or the result must not be used.
    """
    family, k = request.family, request.removed
    members = load_members(family, context.store)
    if members.joint is None or family.base_on is None:
        raise MergingError("a task is taken out of a joint model, and there is none")
    own = members.tasks[k]
    recipe = Recipe(optimiser="adam", lr=request.lr, epochs=request.epochs, batch_size=50)
    tuned = train(
        json.loads(family.config),
        recipe,
        own.train,
        seed=request.seed,
        start=members.joint,
        on_progress=context.report,
    )
    base_data = data_of(family.base_on.data, members.network, context.store)
    everything = concatenate([base_data.train, *(task.train for task in members.tasks)], "train")

    def curvature(state: Params, data: Batches) -> Params:
        fisher = diagonal_fisher(members.model, state, data, seed=request.seed)
        return on_sum_scale(fisher, len(data))

    h0, ht = curvature(members.joint, everything), curvature(tuned, own.train)
    rows = [_still_known("joint", 0.0, members.joint, members, k)]
    for scale in request.scales:
        negated = fuse("task_arithmetic", models=[tuned], base=members.joint, weights=[-scale])
        rows.append(_still_known("negation", scale, negated, members, k))
    for scale in request.scales:
        removed, clamped = remove_task(
            members.joint, tuned, h0, ht, weight=scale, delta=request.delta
        )
        rows.append(_still_known("removal", scale, removed, members, k, clamped))
    return rows


def _still_known(
    name: str, scale: float, state: Params, members: Members, k: int, clamped: float = math.nan
) -> Removal:
    accuracies = [
        float(evaluate(members.model, state, task.test).accuracy[0]) for task in members.tasks
    ]
    own = accuracies.pop(k)
    return Removal(
        name=name,
        scale=scale,
        removed_accuracy=own,
        others_accuracy=sum(accuracies) / max(1, len(accuracies)),
        clamped=clamped,
    )
