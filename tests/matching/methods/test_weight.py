"""Weight matching as a whole: recovery, restarts, and what it does to a trained pair."""

import pytest
import torch

from merging.landscape import interpolate
from merging.matching import match
from merging.matching.search import weight_similarity
from merging.models.zoo.pairs import load_pair
from merging.symmetry import find_symmetry
from merging.symmetry.permutation import invert_permutations, permute
from tests.cases import (
    NETWORKS,
    architecture,
    architecture_symmetry,
    network,
    network_symmetry,
    perceptron,
    random_state,
)
from tests.oracles import inner_product, moving_permutations


@pytest.mark.parametrize("seed", range(4))
def test_planted_permutations_of_deep_perceptrons_are_undone(seed):
    model = perceptron(8, 24, 24, 24, 4)
    spec = find_symmetry(model, (torch.randn(2, 8),))
    a = random_state(model, seed)
    planted = moving_permutations(spec.shapes, seed)
    found = match("weight", model, a, permute(spec, planted, a), spec=spec, seed=seed)
    assert found.converged
    undone = invert_permutations(spec, planted)
    assert all(torch.equal(found.permutations[g], undone[g]) for g in planted)
    squared = sum(float((v.double() ** 2).sum()) for n, v in a.items() if n != "layers.3.bias")
    assert found.objective[-1] == pytest.approx(squared)


@pytest.mark.parametrize("name", ["cnn", "vgg", "resnet-batch", "resnet-layer", "sequence-cnn"])
def test_planted_permutations_of_convolutional_networks_are_undone(name):
    model, spec = architecture(name), architecture_symmetry(name).spec
    a = random_state(model, 4)
    planted = moving_permutations(spec.shapes, 4)
    found = match(
        "weight", model, a, permute(spec, planted, a), spec=spec, options={"restarts": 10}
    )
    undone = invert_permutations(spec, planted)
    assert all(torch.equal(found.permutations[g], undone[g]) for g in planted)


def test_planted_heads_and_streams_of_a_transformer_are_undone():
    model, spec = architecture("vit"), architecture_symmetry("vit").spec
    a = random_state(model, 4)
    planted = moving_permutations(spec.shapes, 4)
    found = match(
        "weight", model, a, permute(spec, planted, a), spec=spec, options={"restarts": 10}
    )
    undone = invert_permutations(spec, planted)
    assert all(torch.equal(found.permutations[g], undone[g]) for g in planted)


@pytest.mark.parametrize("name", ["resnet-layer", "vit"])
def test_models_that_are_not_kept_in_float64_are_matched_alike(name, monkeypatch):
    model, spec = architecture(name), architecture_symmetry(name).spec
    a, b = random_state(model, 1), random_state(model, 2)
    kept = match("weight", model, a, b, spec=spec, options={"restarts": 2})
    monkeypatch.setattr(weight_similarity, "KEPT_BYTES", 0)
    found = match("weight", model, a, b, spec=spec, options={"restarts": 2})
    assert found.objective == kept.objective
    assert all(torch.equal(found.permutations[g], kept.permutations[g]) for g in spec.sizes)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_objective_never_falls_and_is_the_inner_product_at_the_end(name):
    model, spec = network(name), network_symmetry(name).spec
    a, b = random_state(model, 1), random_state(model, 2)
    found = match("weight", model, a, b, spec=spec)
    assert all(y >= x for x, y in zip(found.objective, found.objective[1:], strict=False))
    names = [n for n in dict(model.named_parameters()) if any(e.groups for e in spec.axes[n])]
    slow = inner_product(spec, found.permutations, a, b, names)
    assert found.objective[-1] == pytest.approx(slow, rel=1e-9, abs=1e-9)


def test_the_best_of_all_runs_is_kept():
    model = perceptron(5, 9, 9, 9, 3)
    spec = find_symmetry(model, (torch.randn(2, 5),))
    a, b = random_state(model, 1), random_state(model, 2)
    found = match("weight", model, a, b, spec=spec, options={"restarts": 8})
    assert len(found.restarts) == 8
    assert found.objective[-1] == max(found.restarts)
    assert len(set(found.restarts)) > 1  # coordinate descent is a local search
    single = match("weight", model, a, b, spec=spec, options={"restarts": 1})
    assert single.restarts == found.restarts[:1]


def test_the_number_of_sweeps_is_limited():
    model = perceptron(5, 9, 9, 9, 3)
    spec = find_symmetry(model, (torch.randn(2, 5),))
    a, b = random_state(model, 1), random_state(model, 2)
    found = match("weight", model, a, b, spec=spec, options={"restarts": 1, "max_sweeps": 1})
    assert len(found.objective) == 2
    assert not found.converged


def test_an_already_aligned_model_stays_where_it_is():
    model = perceptron(5, 9, 9, 3)
    spec = find_symmetry(model, (torch.randn(2, 5),))
    a, b = random_state(model, 1), random_state(model, 2)
    first = match("weight", model, a, b, spec=spec)
    again = match("weight", model, a, permute(spec, first.permutations, b), spec=spec)
    assert again.objective[0] == pytest.approx(first.objective[-1])


def test_a_trained_pair_comes_into_one_basin():
    pair = load_pair("digits-mlp-256")
    spec = find_symmetry(pair.model, (pair.data.test.inputs[:2],))
    found = match("weight", pair.model, pair.params_a, pair.params_b, spec=spec)
    aligned = permute(spec, found.permutations, pair.params_b)
    naive = interpolate(pair.model, pair.params_a, pair.params_b, pair.data.train, 9)
    curve = interpolate(pair.model, pair.params_a, aligned, pair.data.train, 9)
    assert naive.barrier() > 0.5
    assert curve.barrier() < 0.05
    assert curve.accuracy.min() > 0.97
