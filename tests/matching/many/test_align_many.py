"""One order of units for many models: J, cycles, recovery, and what it does to trained models."""

from math import isnan

import pytest
import torch

from merging.files.data.bundled import load_dataset
from merging.landscape.evaluate.evaluation import evaluate
from merging.matching import align_many, match
from merging.matching.many.align_many import cycle_error
from merging.matching.search.soft_permutation import mix_tensor, plan_of
from merging.models.state_dict import combine
from merging.models.zoo.training import Recipe, train
from merging.schema.errors import (
    ArchitectureMismatchError,
    MergingError,
    StoppedError,
    SymmetryError,
    UnknownNameError,
)
from merging.symmetry import certify, find_symmetry
from merging.symmetry.permutation import identity_permutations, invert, permute, random_permutations
from tests.cases import (
    architecture,
    architecture_inputs,
    architecture_symmetry,
    network,
    network_inputs,
    network_symmetry,
    perceptron,
    random_state,
)
from tests.oracles import inner_product, moving_permutations, permuted

KINDS = ("first", "merge many", "cycle consistent")
CLIMBING = KINDS[1:]
NAMES = ("dense concatenation", "recurrent", "norms", "attention by matmul", "tied embeddings")


@pytest.fixture(scope="module")
def digits():
    """Four perceptrons from four seeds, trained for a second each."""
    config = {"architecture": "mlp", "widths": [64, 96, 96, 10]}
    recipe, data = Recipe("adam", 2e-3, 20, 100), load_dataset("digits")
    states = [train(config, recipe, data.train, seed=seed) for seed in range(4)]
    model = perceptron(*config["widths"])
    return model, find_symmetry(model, (data.test.inputs[:2],)), states, data


def _objective(spec, model, perms, states) -> float:
    """J by the definition, entry by entry."""
    names = list(dict(model.named_parameters()))
    moved = [permuted(spec, p, s) for p, s in zip(perms, states, strict=True)]
    return sum(
        inner_product(spec, {}, moved[i], moved[j], names)
        for j in range(len(moved))
        for i in range(j)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_every_order_keeps_the_function_and_is_certified(kind, name):
    model, spec, inputs = network(name), network_symmetry(name).spec, network_inputs(name)
    states = [random_state(model, seed) for seed in range(3)]
    found = align_many(spec, model, states, kind, options={"cycle_models": 0})
    for perms in found.permutations:
        assert certify(model, spec, inputs, permutations=perms).ok


@pytest.mark.parametrize("kind", CLIMBING)
@pytest.mark.parametrize("name", NAMES)
def test_the_objective_never_falls_and_is_what_it_says_at_both_ends(kind, name):
    model, spec = network(name), network_symmetry(name).spec
    states = [random_state(model, seed) for seed in range(3)]
    found = align_many(spec, model, states, kind, options={"cycle_models": 0})
    slack = 1e-12 * max(map(abs, found.objective))
    assert all(b >= a - slack for a, b in zip(found.objective, found.objective[1:], strict=False))
    start = [identity_permutations(spec)] * 3
    assert found.objective[0] == pytest.approx(_objective(spec, model, start, states))
    end = _objective(spec, model, found.permutations, states)
    assert found.objective[-1] == pytest.approx(end)
    assert found.converged


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("widths", [(8, 24, 4), (8, 24, 24, 4)])
def test_planted_permutations_of_copies_are_undone(kind, widths):
    model = perceptron(*widths)
    spec = find_symmetry(model, (torch.randn(2, 8),))
    state = random_state(model, 0)
    planted = [moving_permutations(spec.sizes, seed) for seed in range(3)]
    copies = [state, *(permute(spec, perms, state) for perms in planted)]
    found = align_many(spec, model, copies, kind)
    for perms, hidden in zip(found.permutations[1:], planted, strict=True):
        assert all(torch.equal(perms[group], invert(hidden[group])) for group in hidden)
    for perms, copy in zip(found.permutations, copies, strict=True):
        moved = permute(spec, perms, copy)
        assert all(torch.equal(moved[name], state[name]) for name in state)
    assert found.cycle_error.pairwise == 0


@pytest.mark.parametrize("kind", KINDS)
def test_planted_orders_of_heads_and_inside_heads_are_undone(kind):
    model, spec = network("attention by matmul"), network_symmetry("attention by matmul").spec
    state = random_state(model, 0)
    planted = [moving_permutations(spec.shapes, seed) for seed in range(3)]
    copies = [state, *(permute(spec, perms, state) for perms in planted)]
    found = align_many(spec, model, copies, kind)
    for perms, copy in zip(found.permutations, copies, strict=True):
        moved = permute(spec, perms, copy)
        assert all(torch.equal(moved[name], state[name]) for name in state)
    assert found.cycle_error.pairwise == found.cycle_error.result == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_model_keeps_its_own_order(kind, digits):
    model, spec, states, _ = digits
    found = align_many(spec, model, states, kind, options={"cycle_models": 0})
    assert all(
        torch.equal(found.permutations[0][g], torch.arange(n)) for g, n in spec.sizes.items()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_two_models_with_one_hidden_layer_are_matched_as_by_weight_matching(kind):
    model = perceptron(5, 12, 3)
    spec = find_symmetry(model, (torch.randn(2, 5),))
    states = [random_state(model, seed) for seed in (1, 2)]
    alone = match("weight", model, *states, spec=spec)
    found = align_many(spec, model, states, kind)
    assert all(torch.equal(found.permutations[1][g], p) for g, p in alone.permutations.items())
    fixed = float((states[0]["layers.1.bias"] * states[1]["layers.1.bias"]).sum())
    assert found.objective[-1] == pytest.approx(alone.objective[-1] + fixed)


@pytest.mark.parametrize("kind", CLIMBING)
def test_weight_matching_to_the_mean_of_the_others_finds_nothing_more(kind, digits):
    model, spec, states, _ = digits
    found = align_many(spec, model, states, kind, options={"cycle_models": 0})
    moved = [permute(spec, p, s) for p, s in zip(found.permutations, states, strict=True)]
    for k, own in enumerate(moved):
        mean = combine([m for j, m in enumerate(moved) if j != k], [1 / 3] * 3)
        again = match("weight", model, mean, own, spec=spec, options={"restarts": 1})
        assert again.objective[-1] == pytest.approx(again.objective[0], rel=1e-6)


def test_going_round_pairs_leads_astray_and_the_common_order_does_not(digits):
    model, spec, states, _ = digits
    found = align_many(spec, model, states, "cycle consistent")
    assert 0.3 < found.cycle_error.pairwise < 1
    assert found.cycle_error.result == 0


def test_the_cycle_error_counts_units_that_do_not_come_back():
    model = perceptron(3, 4, 2)
    spec = find_symmetry(model, (torch.randn(2, 3),))
    (group,) = spec.sizes
    one, swap = torch.arange(4), torch.tensor([1, 0, 2, 3])
    pairs = {(0, 1): {group: one}, (1, 2): {group: one}, (0, 2): {group: swap}}
    assert cycle_error(spec, pairs) == 0.5
    pairs[0, 1] = {group: torch.tensor([2, 0, 1, 3])}
    pairs[1, 2] = {group: torch.tensor([3, 0, 2, 1])}
    # A's 0 is B's 2 is C's 2; A's 1 is B's 0 is C's 3; A's 2 is B's 1 is C's 0; A's 3 is C's 1.
    pairs[0, 2] = {group: torch.tensor([2, 3, 0, 1])}
    assert cycle_error(spec, pairs) == 0


def test_two_models_have_no_cycles():
    model = perceptron(3, 4, 2)
    spec = find_symmetry(model, (torch.randn(2, 3),))
    found = align_many(spec, model, [random_state(model, s) for s in (1, 2)], "first")
    assert isnan(found.cycle_error.pairwise)
    assert found.cycle_error.result == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_of_trained_models_is_a_model_once_they_have_one_order(kind, digits):
    model, spec, states, data = digits
    found = align_many(spec, model, states, kind, options={"cycle_models": 0})
    moved = [permute(spec, p, s) for p, s in zip(found.permutations, states, strict=True)]
    accuracy = [
        evaluate(model, combine(models, [0.25] * 4), data.test).accuracy[0]
        for models in (states, moved)
    ]
    assert accuracy[0] < 0.7
    assert accuracy[1] > 0.85


def test_looking_at_all_models_at_once_brings_them_closer_than_the_first_alone(digits):
    model, spec, states, _ = digits
    ends = {k: align_many(spec, model, states, k).objective[-1] for k in KINDS}
    assert ends["first"] < ends["merge many"]
    assert ends["first"] < ends["cycle consistent"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_orders_and_inputs_stay(kind):
    model, spec = architecture("cnn"), architecture_symmetry("cnn").spec
    states = [random_state(model, seed) for seed in range(3)]
    before = [{name: value.clone() for name, value in state.items()} for state in states]
    one, two = (align_many(spec, model, states, kind, seed=3) for _ in range(2))
    assert one.objective == two.objective
    for a, b in zip(one.permutations, two.permutations, strict=True):
        assert all(torch.equal(a[group], b[group]) for group in a)
    for state, kept in zip(states, before, strict=True):
        assert all(torch.equal(state[name], kept[name]) for name in kept)


@pytest.mark.parametrize("name", ["cnn", "resnet-layer", "vit"])
@pytest.mark.parametrize("kind", KINDS)
def test_runs_on_every_architecture(kind, name):
    model, spec = architecture(name), architecture_symmetry(name).spec
    states = [random_state(model, seed) for seed in range(3)]
    found = align_many(spec, model, states, kind, options={"cycle_models": 0, "steps": 5})
    for perms in found.permutations:
        assert certify(model, spec, architecture_inputs(name), permutations=perms).ok


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("after", [1, 2])
def test_stopping_gives_the_best_so_far(kind, after):
    model = perceptron(6, 12, 12, 3)
    spec = find_symmetry(model, (torch.randn(2, 6),))
    states = [random_state(model, seed) for seed in range(4)]
    calls = []

    def stop(done, total, note):
        calls.append((done, total, note))
        if len(calls) == after:
            raise StoppedError("enough")

    found = align_many(spec, model, states, kind, on_progress=stop)
    assert found.stopped
    assert not found.converged
    assert len(calls) == after
    assert found.objective[-1] > found.objective[0]
    end = _objective(spec, model, found.permutations, states)
    assert found.objective[-1] == pytest.approx(end)
    assert isnan(found.cycle_error.pairwise)


@pytest.mark.parametrize("kind", KINDS)
def test_progress_goes_from_nothing_to_all(kind, digits):
    model, spec, states, _ = digits
    told = []
    align_many(spec, model, states, kind, on_progress=lambda d, t, n: told.append((d / t, n)))
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    assert all(note for _, note in told)


def test_one_model_alone_is_in_order():
    model = perceptron(3, 4, 2)
    spec = find_symmetry(model, (torch.randn(2, 3),))
    for kind in KINDS:
        found = align_many(spec, model, [random_state(model, 1)], kind)
        assert found.converged
        assert [p.tolist() for p in found.permutations[0].values()] == [[0, 1, 2, 3]]


def test_half_precision_and_float64_models_are_matched_together():
    model = perceptron(5, 9, 3)
    spec = find_symmetry(model, (torch.randn(2, 5),))
    a = random_state(model, 1)
    planted = random_permutations(spec, torch.Generator().manual_seed(2))
    b = {n: v.half() for n, v in permute(spec, planted, a).items()}
    c = {n: v.double() for n, v in permute(spec, planted, a).items()}
    found = align_many(spec, model, [a, b, c], "merge many")
    for perms in found.permutations[1:]:
        assert all(torch.equal(perms[g], invert(planted[g])) for g in planted)


def test_what_cannot_be_aligned_is_refused():
    model = perceptron(3, 4, 2)
    spec = find_symmetry(model, (torch.randn(2, 3),))
    good, wide = random_state(model, 1), random_state(perceptron(3, 5, 2), 1)
    broken = {**good, "layers.0.bias": torch.full((4,), float("nan"))}
    with pytest.raises(UnknownNameError, match=r"unknown kind of order 'best'; choose from first"):
        align_many(spec, model, [good, good], "best")
    with pytest.raises(UnknownNameError, match=r"has no option 'restart'"):
        align_many(spec, model, [good, good], "first", options={"restart": 1})
    with pytest.raises(MergingError, match=r"no models to align"):
        align_many(spec, model, [], "first")
    with pytest.raises(ArchitectureMismatchError, match=r"model 3 \(B\) does not fit.*0\.weight"):
        align_many(spec, model, [good, good, wide], "first")
    with pytest.raises(MergingError, match=r"model 2 has NaN or infinite.*'layers.0.bias'"):
        align_many(spec, model, [good, broken], "first")
    with pytest.raises(SymmetryError, match=r"expects \[4, 3\]"):
        align_many(spec, model, [wide, wide], "first")


@pytest.mark.parametrize("name", ["dense concatenation", "attention by matmul", "group norm"])
def test_mixing_by_the_matrix_of_a_permutation_permutes(name):
    model, spec = network(name), network_symmetry(name).spec
    state, perms = random_state(model, 1), moving_permutations(spec.sizes, 2)
    plans = {group: plan_of(perm) for group, perm in perms.items()}
    moved = permute(spec, perms, state)
    for key, expressions in spec.axes.items():
        torch.testing.assert_close(mix_tensor(state[key], expressions, plans), moved[key])
