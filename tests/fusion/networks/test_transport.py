"""Fusion by optimal transport: permutations, other widths, what it costs and what it refuses."""

import itertools

import pytest
import torch

from merging.files.data.batches import Batches
from merging.fusion.networks.transport import fuse_by_transport, soft_plan
from merging.landscape.evaluate.evaluation import evaluate
from merging.matching.search import assignment
from merging.matching.search.assignment import solve_transport
from merging.models.architectures.registry import build_model
from merging.models.state_dict import lerp
from merging.models.zoo.pairs import load_pair
from merging.schema.errors import ArchitectureMismatchError, DataError, MergingError, StoppedError
from merging.symmetry import find_symmetry
from merging.symmetry.permutation import permute
from tests.cases import (
    CONFIGS,
    architecture,
    architecture_inputs,
    architecture_symmetry,
    network,
    network_inputs,
    network_symmetry,
    perceptron,
    random_state,
)
from tests.oracles import moving_permutations, outputs

FEATURES = ("weights", "activations")


def batches(x):
    return Batches(x, torch.zeros(len(x), dtype=torch.int64), 50)


def _close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def _widened(state: dict, orders: list[torch.Tensor]) -> dict:
    """A perceptron of twice the width with every hidden unit twice, of the same function."""
    wide, before = {}, torch.arange(state["layers.0.weight"].shape[1])
    share = 1.0
    for k in range(len(orders) + 1):
        weight, bias = state[f"layers.{k}.weight"], state[f"layers.{k}.bias"]
        last = k == len(orders)
        twice = (
            torch.arange(len(bias)) if last
            else torch.arange(len(bias)).repeat_interleave(2)[orders[k]]
        )  # fmt: skip
        wide[f"layers.{k}.weight"] = weight[twice][:, before] * share
        wide[f"layers.{k}.bias"] = bias[twice]
        before, share = twice, 0.5
    return wide


def _narrow_and_wide(generator):
    narrow, wide = perceptron(5, 4, 3, 2), perceptron(5, 8, 6, 2)
    state = random_state(narrow, 1)
    large = _widened(state, [torch.randperm(n, generator=generator) for n in (8, 6)])
    x = torch.randn(100, 5, generator=generator)
    _close(outputs(wide, large, x), outputs(narrow, state, x))
    return (narrow, wide), (state, large), [find_symmetry(m, (x[:2],)) for m in (narrow, wide)], x


@pytest.mark.parametrize("features", FEATURES)
def test_a_wide_model_of_doubled_units_is_fused_back_into_the_narrow_one(features, generator):
    models, states, specs, x = _narrow_and_wide(generator)
    options = {"features": features}
    found = fuse_by_transport(models, states, specs, batches(x), options=options)
    for name, value in states[0].items():
        torch.testing.assert_close(found.params[name], value)
        torch.testing.assert_close(found.aligned[1][name], value)
    assert all(cost == pytest.approx(0, abs=1e-3) for cost in found.costs[0].values())


@pytest.mark.parametrize("features", FEATURES)
def test_a_narrow_model_is_carried_into_a_wide_one_and_keeps_its_function(features, generator):
    models, states, specs, x = _narrow_and_wide(generator)
    found = fuse_by_transport(
        models[::-1], states[::-1], specs[::-1], batches(x), options={"features": features}
    )
    _close(outputs(models[1], found.aligned[1], x), outputs(models[0], states[0], x))
    _close(outputs(models[1], found.params, x), outputs(models[0], states[0], x))


@pytest.mark.parametrize(
    ("name", "features"),
    [("vgg", "weights"), *itertools.product(["cnn", "resnet-batch", "sequence-cnn"], FEATURES)],
)
def test_between_equal_widths_the_plans_are_the_permutations_that_were_planted(name, features):
    config = {**CONFIGS[name], **({"width": 6} if "width" in CONFIGS[name] else {})}
    model = build_model(config, seed=1)
    (x,) = architecture_inputs(name, 40)
    spec = find_symmetry(model, (x[:2],))
    state = random_state(model, 1)
    planted = moving_permutations(spec.sizes, 2)
    copy = permute(spec, planted, state)
    found = fuse_by_transport(
        [model, model], [state, copy], [spec, spec], batches(x), options={"features": features}
    )
    _close(outputs(model, found.params, x), outputs(model, state, x))
    for group, perm in planted.items():
        n = len(perm)
        torch.testing.assert_close((found.plans[0][group] * n).amax(0), torch.ones(n).double())
        if features == "activations":  # which cannot tell dead units apart
            continue
        assert torch.equal((found.plans[0][group] * n).argmax(0), perm)


def test_trained_models_are_better_fused_than_averaged():
    pair = load_pair("digits-mlp-256")
    spec = find_symmetry(pair.model, (pair.data.test.inputs[:2],))
    states = [pair.params_a, pair.params_b]
    naive = evaluate(pair.model, lerp(*states, 0.5), pair.data.test).loss[0]
    before = [{name: value.clone() for name, value in state.items()} for state in states]
    for features in FEATURES:
        found = fuse_by_transport(
            [pair.model] * 2, states, [spec] * 2, pair.data.train, options={"features": features}
        )
        assert evaluate(pair.model, found.params, pair.data.test).loss[0] < 0.5 * naive
    for state, kept in zip(states, before, strict=True):
        assert all(torch.equal(state[name], kept[name]) for name in kept)


def test_weights_are_shares_of_the_models(generator):
    models, states, specs, x = _narrow_and_wide(generator)
    states = (states[0], random_state(models[1], 7))
    found = fuse_by_transport(models, states, specs, batches(x), weights=[3, 1])
    for name, value in found.params.items():
        mixed = 0.75 * states[0][name] + 0.25 * found.aligned[1][name]
        torch.testing.assert_close(value, mixed)


def test_a_soft_plan_goes_from_the_exact_one_to_the_uniform_one(generator):
    costs = torch.rand(6, 6, generator=generator)
    exact = solve_transport(costs)
    for entropy in (0.05, 0.3, 100.0):
        plan = soft_plan(costs, entropy)
        torch.testing.assert_close(plan.sum(1), torch.full((6,), 1 / 6).double(), atol=1e-4, rtol=0)
        torch.testing.assert_close(plan.sum(0), torch.full((6,), 1 / 6).double(), atol=1e-6, rtol=0)
    assert float((soft_plan(costs, 0.05) - exact).abs().max()) < 0.08
    assert float((soft_plan(costs, 100.0) - 1 / 36).abs().max()) < 1e-3


@pytest.mark.parametrize(("n", "m"), [(3, 3), (2, 4), (4, 2), (2, 3), (3, 2)])
def test_transport_costs_no_more_than_any_whole_distribution(n, m, generator):
    costs = torch.rand(n, m, generator=generator, dtype=torch.float64)
    plan = solve_transport(costs)
    total = torch.lcm(torch.tensor(n), torch.tensor(m)).item()
    sources = [i for i in range(n) for _ in range(total // n)]
    best = min(
        sum(float(costs[i, j]) for i, j in zip(sources, order, strict=True)) / total
        for order in set(itertools.permutations([j for j in range(m) for _ in range(total // m)]))
    )
    assert float((plan * costs).sum()) == pytest.approx(best)


def test_the_linear_programme_agrees_with_copies(generator, monkeypatch):
    costs = torch.rand(12, 9, generator=generator, dtype=torch.float64)
    by_copies = solve_transport(costs)
    monkeypatch.setattr(assignment, "_MOST_COPIES", 0)
    by_programme = solve_transport(costs)
    for plan in (by_copies, by_programme):
        torch.testing.assert_close(plan.sum(1), torch.full((12,), 1 / 12).double())
        torch.testing.assert_close(plan.sum(0), torch.full((9,), 1 / 9).double())
    assert float((by_copies * costs).sum()) == pytest.approx(float((by_programme * costs).sum()))


def test_costs_that_are_no_finite_matrix_are_refused():
    for costs in (torch.zeros(3), torch.tensor([[float("nan")]])):
        with pytest.raises(ValueError, match="costs must be a finite matrix"):
            solve_transport(costs)


def test_a_network_with_a_loop_is_fused_from_what_enters_it():
    model, spec = network("recurrent"), network_symmetry("recurrent").spec
    (x,) = network_inputs("recurrent", 20)
    state = random_state(model, 1)
    copy = permute(spec, moving_permutations(spec.sizes, 2), state)
    found = fuse_by_transport([model] * 2, [state, copy], [spec] * 2, batches(x))
    _close(outputs(model, found.params, x), outputs(model, state, x))


def test_models_that_differ_in_more_than_widths_are_refused(generator):
    x = torch.randn(10, 5, generator=generator)
    model = perceptron(5, 4, 2)
    state, spec = random_state(model, 1), find_symmetry(model, (x[:2],))
    for other, what in (
        (perceptron(5, 4, 4, 2), r"different tensors \('layers.2.bias' for one\)"),
        (perceptron(5, 4, 3), r"'layers.1.weight' is \[2, 4\] in model 1 and \[3, 4\] in model 2"),
    ):
        theirs = find_symmetry(other, (x[:2],))
        with pytest.raises(ArchitectureMismatchError, match=what):
            fuse_by_transport(
                [model, other], [state, random_state(other, 2)], [spec, theirs], batches(x)
            )
    with pytest.raises(MergingError, match=r"got 1 models, 2 state dicts and 2 specs"):
        fuse_by_transport([model], [state] * 2, [spec] * 2, batches(x))
    with pytest.raises(MergingError, match=r"got the weights \[1.0, -1.0\] for 2 models"):
        fuse_by_transport([model] * 2, [state] * 2, [spec] * 2, batches(x), weights=[1, -1])
    with pytest.raises(DataError, match="none were given"):
        fuse_by_transport([model] * 2, [state] * 2, [spec] * 2, [])


def test_attention_is_refused_by_the_name_of_its_group():
    model, spec = architecture("vit"), architecture_symmetry("vit").spec
    state = random_state(model, 1)
    with pytest.raises(MergingError, match=r"units of the group '.*' cannot be averaged"):
        fuse_by_transport(
            [model] * 2, [state] * 2, [spec] * 2, batches(architecture_inputs("vit")[0])
        )


def test_transport_reports_progress_and_can_be_stopped(generator):
    models, states, specs, x = _narrow_and_wide(generator)
    told = []
    fuse_by_transport(
        models, states, specs, batches(x), on_progress=lambda d, t, _: told.append((d, t))
    )
    assert told == [(1, 2), (2, 2)]

    def stop(*_):
        raise StoppedError("enough")

    with pytest.raises(StoppedError, match="enough"):
        fuse_by_transport(models, states, specs, batches(x), on_progress=stop)
