"""Two models examined: planted permutations, chance, common starts, dead units."""

from __future__ import annotations

import pytest
import torch

import merging
from merging.matching.checks.diagnosis import examine, fresh
from merging.models.build import build_network


@pytest.fixture(scope="module")
def pair():
    return merging.load_pair("digits-mlp-256")


@pytest.fixture(scope="module")
def network(pair):
    return build_network(pair.card["config"])


@pytest.fixture(scope="module")
def spec(network):
    return merging.find_symmetry(network.model, network.example_inputs)


def test_a_planted_permutation_is_found_and_trained_models_are_nearer_than_chance(
    pair, network, spec
):
    found = examine(network, spec, pair.params_a, pair.params_b)
    assert (found.recovered, found.units) == (768, 768)
    assert found.matched_cosine > 1.3 * found.null_cosine > 0
    assert not found.shared_start
    assert (found.dead_a, found.dead_b, found.norms) == (0, 0, ())


def test_a_fine_tuned_copy_is_seen_to_have_the_same_start(pair, network, spec):
    generator = torch.Generator().manual_seed(0)
    tuned = {
        name: value + 0.01 * torch.randn(value.shape, generator=generator)
        for name, value in pair.params_a.items()
    }
    tuned["layers.0.bias"] = pair.params_a["layers.0.bias"]
    found = examine(network, spec, pair.params_a, tuned)
    assert found.shared_start
    assert found.equal_share == pytest.approx(256 / 150_794)


def test_dead_units_are_counted(pair, network, spec):
    params = {name: value.clone() for name, value in pair.params_a.items()}
    params["layers.1.weight"][:, 3] = 0
    params["layers.1.weight"][5] = 0
    assert examine(network, spec, params, pair.params_b).dead_a == 2


def test_norms_are_named():
    pair = merging.load_pair("mnist-resnet-ln")
    network = build_network(pair.card["config"])
    spec = merging.find_symmetry(network.model, network.example_inputs)
    assert examine(network, spec, pair.params_a, pair.params_b).norms == ("9 × LayerNorm",)


def test_what_learned_nothing_has_the_same_numbers_in_another_order(pair):
    shuffled = fresh(pair.params_a, torch.Generator().manual_seed(1))
    for name, value in pair.params_a.items():
        assert torch.equal(shuffled[name].flatten().sort()[0], value.flatten().sort()[0])
        assert not torch.equal(shuffled[name], value)
