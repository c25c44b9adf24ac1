"""Straight-through matching: at least as good as weight matching, and the best is what is kept."""

import numpy as np
import pytest
import torch

from merging.files.data.batches import Batches
from merging.landscape import evaluate, reset
from merging.matching import match
from merging.matching.problem import MatchProblem
from merging.matching.search.coordinate_descent import descend
from merging.matching.search.weight_similarity import WeightSimilarity
from merging.models.state_dict import lerp
from merging.schema.errors import StoppedError
from merging.symmetry import find_symmetry
from merging.symmetry.permutation import identity_permutations, permute
from tests.cases import (
    CONFIGS,
    architecture,
    architecture_symmetry,
    network,
    network_inputs,
    network_symmetry,
    perceptron,
    random_state,
    synthetic_batches,
)
from tests.oracles import evaluation, mix

RESTLESS = {"epochs": 12, "batch_size": 8, "lr": 1.0}


def middle_loss(model, spec, a, b, perms, batches):
    """The midpoint's loss, example by example through the module itself."""
    middle = mix([a, permute(spec, perms, b)], [0.5, 0.5])
    return float(evaluation(model, [middle], batches)[0].mean())


def first_descent(model, spec, a, b, seed):
    """One run of weight matching with the orders that straight-through matching starts with."""
    similarity = WeightSimilarity(spec, a, b, MatchProblem(model, spec, a, b).weights)
    generator = torch.Generator().manual_seed(seed)
    start = identity_permutations(spec)
    return descend(similarity, start, generator, max_sweeps=100).permutations


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "resnet-batch"])
def test_the_midpoint_is_never_worse_than_that_of_weight_matching(name):
    model, spec = architecture(name), architecture_symmetry(name).spec
    a, b = random_state(model, 1, scale=0.2), random_state(model, 2, scale=0.2)
    batches = synthetic_batches(name, 20)
    given = {"spec": spec, "batches": batches, "seed": 3}
    weight = first_descent(model, spec, a, b, 3)
    through = match(
        "straight_through", model, a, b, options={"epochs": 2, "batch_size": 10}, **given
    )
    by_weight = middle_loss(model, spec, a, b, weight, batches)
    by_through = middle_loss(model, spec, a, b, through.permutations, batches)
    assert through.objective[0] == pytest.approx(by_weight, rel=1e-5)
    assert through.objective[-1] == pytest.approx(by_through, rel=1e-5)
    assert by_through <= by_weight + 1e-6


def restless():
    """Models and steps so large that the permutation keeps changing."""
    model = perceptron(6, 12, 12, 3)
    a, b = random_state(model, 1), random_state(model, 2)
    x = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))
    batches = Batches(x, torch.arange(32) % 3)
    return model, a, b, find_symmetry(model, (x,)), batches


@pytest.mark.parametrize("stop", [1, 3, 4, 21, 48])
def test_a_run_that_was_stopped_goes_on_to_what_it_would_have_found(stop):
    model, a, b, spec, batches = restless()
    given = {"spec": spec, "batches": batches, "seed": 1, "options": RESTLESS}
    kept = {}

    def keep(state):
        kept.clear()
        kept.update({name: value.clone() for name, value in state().items()})

    def stop_there(done, total, note):
        if done == stop:
            raise StoppedError

    whole = match("straight_through", model, a, b, **given)
    first = match(
        "straight_through", model, a, b, **given, on_progress=stop_there, on_state=keep
    )  # fmt: skip
    assert first.stopped
    assert len(first.objective) == stop + 1
    steps = []
    found = match(
        "straight_through", model, a, b, **given, state=dict(kept),
        on_progress=lambda done, total, note: steps.append(done),
    )  # fmt: skip
    assert steps == list(range(stop + 1, 49)), "it did not start from nothing"
    assert found.objective == whole.objective
    assert len(set(whole.objective)) > 2
    assert found.permutations.keys() == whole.permutations.keys()
    assert all(torch.equal(found.permutations[g], perm) for g, perm in whole.permutations.items())


def test_a_model_with_batch_norm_and_unused_weights_goes_on_too():
    model = torch.nn.Sequential(
        torch.nn.Linear(6, 9), torch.nn.BatchNorm1d(9), torch.nn.ReLU(), torch.nn.Linear(9, 3)
    ).eval()
    a, b = random_state(model, 1), random_state(model, 2)
    x = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))
    batches, spec = Batches(x, torch.arange(32) % 3), find_symmetry(model, (x,))
    given = {"spec": spec, "batches": batches, "seed": 1, "options": {**RESTLESS, "epochs": 4}}
    states = []
    whole = match(
        "straight_through", model, a, b, **given,
        on_state=lambda state: states.append({k: v.clone() for k, v in state().items()}),
    )  # fmt: skip
    found = match("straight_through", model, a, b, **given, state=states[5])
    assert found.objective == whole.objective


@pytest.mark.parametrize("seed", range(3))
def test_the_best_permutation_is_kept_and_not_the_last(seed):
    model, a, b, spec, batches = restless()
    partial = []
    found = match(
        "straight_through", model, a, b, spec=spec, batches=batches, seed=seed, options=RESTLESS,
        on_partial=partial.append,
    )  # fmt: skip
    assert all(y <= x for x, y in zip(found.objective, found.objective[1:], strict=False))
    assert found.objective[-1] < found.objective[0]
    # Better permutations came up before the end, and what was noted then has not changed since.
    assert partial[0].objective[-1] > partial[-1].objective[-1]
    for result in (partial[0], partial[len(partial) // 2], partial[-1], found):
        loss = middle_loss(model, spec, a, b, result.permutations, batches)
        assert loss == pytest.approx(result.objective[-1], rel=1e-5)


def test_the_objective_has_one_entry_per_step():
    model, a, b, spec, batches = restless()
    found = match(
        "straight_through", model, a, b, spec=spec, batches=batches,
        options={"epochs": 3, "batch_size": 10},
    )  # fmt: skip
    assert len(found.objective) == 1 + 3 * 4
    assert "nats per example" in found.objective_name


def test_yes_or_no_questions_are_matched():
    model = perceptron(2, 4, 1)
    a, b = random_state(model, 1), random_state(model, 2)
    x = torch.randn(40, 2)
    batches = Batches(x, (x[:, 0] > 0).long())
    spec = find_symmetry(model, (x,))
    found = match("straight_through", model, a, b, spec=spec, batches=batches, options=RESTLESS)
    middle = lerp(a, permute(spec, found.permutations, b), 0.5)
    assert found.objective[-1] == pytest.approx(float(evaluate(model, middle, batches).loss[0]))


def test_midpoints_of_batch_norm_are_judged_with_statistics_of_their_own():
    name = "resnet-batch"
    model, spec = architecture(name), architecture_symmetry(name).spec
    a, b = random_state(model, 1, scale=0.3), random_state(model, 2, scale=0.3)
    batches = synthetic_batches(name, 20)
    found = match(
        "straight_through", model, a, b, spec=spec, batches=batches,
        options={"epochs": 2, "batch_size": 10},
    )  # fmt: skip
    middle = reset(model, lerp(a, permute(spec, found.permutations, b), 0.5), batches)
    assert found.objective[-1] == pytest.approx(float(evaluate(model, middle, batches).loss[0]))
    assert np.isfinite(found.objective).all()


def test_the_gradient_step_is_the_one_by_hand():
    """One step from A: the free copy moves against the gradient at the midpoint (Eq. 3)."""
    model = perceptron(3, 2, 2)
    a, b = random_state(model, 1), random_state(model, 2)
    x = torch.randn(12, 3)
    batches = Batches(x, torch.arange(12) % 2)
    spec = find_symmetry(model, (x,))
    first = first_descent(model, spec, a, b, 0)
    aligned = permute(spec, first, b)
    middle = {n: v.requires_grad_() for n, v in mix([a, aligned], [0.5, 0.5]).items()}
    logits = torch.func.functional_call(model, middle, (x,))
    torch.nn.functional.cross_entropy(logits, batches.targets).backward()
    lr = 0.7
    free = {n: a[n] - lr * 0.5 * middle[n].grad for n in a}
    second = first_descent(model, spec, free, b, 0)
    losses = [middle_loss(model, spec, a, b, perms, batches) for perms in (first, second)]
    found = match(
        "straight_through", model, a, b, spec=spec, batches=batches,
        options={"epochs": 1, "batch_size": 12, "lr": lr},
    )  # fmt: skip
    assert found.objective == pytest.approx([losses[0], min(losses)], rel=1e-5)


def test_tied_tensors_take_part_in_the_gradient_step(monkeypatch):
    name = "tied embeddings"
    model, (x,) = network(name), network_inputs(name, 8)
    a, b = random_state(model, 1), random_state(model, 2)
    batches = Batches(x, torch.arange(8) % 7)
    moved = []

    def watch(optimiser, closure=None):
        free = [p for group in optimiser.param_groups for p in group["params"]]
        moved.extend(p.grad is not None and bool(p.grad.any()) for p in free)

    monkeypatch.setattr(torch.optim.SGD, "step", watch)
    match(
        "straight_through",
        model,
        a,
        b,
        spec=network_symmetry(name).spec,
        batches=batches,
        options={"epochs": 1},
    )
    assert moved == [True] * 3
