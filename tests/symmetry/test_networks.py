"""Every way to join, cut and mix tensors: the groups are those by hand, the function is kept."""

import copy
import math

import pytest
import torch

from merging.symmetry import certify, find_symmetry, share_moved, summarise
from merging.symmetry.permutation import permute
from tests.cases import (
    CONFIGS,
    NETWORKS,
    architecture,
    architecture_inputs,
    architecture_symmetry,
    network,
    network_inputs,
    network_symmetry,
    random_state,
)
from tests.oracles import moving_permutations, outputs, relative_difference

every_network = pytest.mark.parametrize("name", NETWORKS)
every_architecture = pytest.mark.parametrize("name", CONFIGS)


@every_network
def test_groups_are_those_found_by_hand(name):
    spec = network_symmetry(name).spec
    assert tuple(sorted(spec.sizes.values())) == NETWORKS[name].sizes
    assert spec.report.unknown_operators == ()
    assert not [f for f in spec.report.frozen if "permuting it" in f.reason]


@every_network
def test_permuting_keeps_the_function_of_the_module_itself(name):
    spec = network_symmetry(name).spec
    model = copy.deepcopy(network(name)).double()
    for seed in range(3):
        params = random_state(model, seed)
        (x,) = network_inputs(name, 9, seed=seed)
        x = x.double() if x.is_floating_point() else x
        moved = permute(spec, moving_permutations(spec.shapes, seed), params)
        before = outputs(model, params, x)
        assert before.std() > 0
        assert relative_difference(before, outputs(model, moved, x)) < 1e-9
        assert any(not torch.equal(moved[n], params[n]) for n in params)


@every_network
def test_each_group_keeps_the_function_by_itself(name):
    spec = network_symmetry(name).spec
    model = copy.deepcopy(network(name)).double()
    params = random_state(model, 1)
    (x,) = network_inputs(name, 9, seed=1)
    x = x.double() if x.is_floating_point() else x
    before = outputs(model, params, x)
    for group, perm in moving_permutations(spec.shapes, 7).items():
        moved = permute(spec, {group: perm}, params)
        assert relative_difference(before, outputs(model, moved, x)) < 1e-9, group


@every_network
def test_a_derived_spec_is_certified_for_any_seed(name):
    derived = network_symmetry(name).spec
    for seed in range(5):
        certificate = certify(network(name), derived, network_inputs(name), seed=seed)
        assert certificate.ok
        assert certificate.max_relative_difference <= 1e-12
        assert certificate.tolerance == 1e-9
        assert certificate.units == sum(math.prod(s) for s in derived.shapes.values())


@every_architecture
def test_every_architecture_is_certified_with_a_planted_permutation(name):
    spec = architecture_symmetry(name).spec
    planted = moving_permutations(spec.shapes, 3)
    certificate = certify(architecture(name), spec, architecture_inputs(name), permutations=planted)
    assert certificate.ok
    assert certificate.share_moved > 0.9
    assert spec.report.unknown_operators == ()


@every_architecture
def test_every_architecture_keeps_its_function_in_the_module_itself(name):
    spec = architecture_symmetry(name).spec
    model = copy.deepcopy(architecture(name)).double()
    params = random_state(model, 2)
    x = architecture_inputs(name, 6)[0].double()
    moved = permute(spec, moving_permutations(spec.shapes, 2), params)
    assert relative_difference(outputs(model, params, x), outputs(model, moved, x)) < 1e-9


@every_architecture
def test_finding_the_symmetry_leaves_the_model_as_it_was(name):
    model = copy.deepcopy(architecture(name)).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    find_symmetry(model, architecture_inputs(name))
    assert model.training
    assert all(module.training for module in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_the_share_moved_counts_entries_on_axes_with_a_group():
    spec = network_symmetry("slices").spec
    # both: 7 x 4 + 7; left: 2 x 3, right: 2 x 4; only the two output biases stay.
    assert share_moved(spec) == pytest.approx((35 + 14) / (35 + 14 + 4))


def test_a_summary_says_what_the_spec_and_the_certificate_say():
    name = "grouped convolution"
    spec = network_symmetry(name).spec
    certificate = certify(network(name), spec, network_inputs(name))
    summary = summarise(spec, certificate, 0.25)
    assert summary.certified
    assert summary.log10_orderings == pytest.approx(spec.log10_orderings)
    assert summary.seconds == 0.25
    units = {group: math.prod(shape) for group, shape in spec.shapes.items()}
    assert {group.name: group.units for group in summary.groups} == units
    axes = {group.name: group.axes for group in summary.groups}
    assert "2.weight[1]" in axes["0.weight[0].1"]
    assert {f.parameter for f in summary.frozen} >= {"0.weight", "5.bias"}


def test_a_batch_of_one_gives_the_same_groups():
    for name in ("convolution then flatten", "attention by matmul", "class token"):
        single = find_symmetry(network(name), network_inputs(name, 1))
        assert single.sizes == network_symmetry(name).spec.sizes
