"""Activation matching: streamed moments against numpy in one go, and what is made of them."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from merging.files.data.batches import Batches
from merging.matching import match
from merging.matching.problem import ignore
from merging.matching.search.activation_moments import activation_sites, joint_units, stream_moments
from merging.schema.errors import StoppedError, SymmetryError
from merging.symmetry import find_symmetry
from merging.symmetry.permutation import identity_permutations, invert, invert_permutations, permute
from merging.symmetry.spec import AxisExpression, PermutationSpec
from tests.cases import (
    NETWORKS,
    Net,
    architecture,
    architecture_symmetry,
    network,
    network_inputs,
    network_symmetry,
    perceptron,
    random_state,
    synthetic_batches,
)
from tests.oracles import best_assignment, moving_permutations


def batches_of(x, size=7):
    return Batches(x, torch.zeros(len(x), dtype=torch.int64), size)


def moments_of(model, spec, a, b, batches):
    """What is streamed, by the groups of the joint units."""
    derivation, sites = activation_sites(model, spec, (batches.inputs[:2],))
    *_, last = stream_moments(derivation, sites, (a, b), batches, ignore, len(batches))
    return {m.groups: m for m in last}


def layer_outputs(model, params, x, layer):
    """What a module returns, by a hook."""
    found = []
    handle = model.get_submodule(layer).register_forward_hook(lambda m, i, out: found.append(out))
    with torch.no_grad():
        torch.func.functional_call(model, params, (x,))
    handle.remove()
    return found[0]


def check(moments, za, zb):
    """Compare one record with `[samples, units]` values of both models."""
    za, zb = (z.double().numpy() for z in (za, zb))
    assert moments.samples == len(za)
    product = moments.similarity("inner product").numpy()
    np.testing.assert_allclose(product, za.T @ zb / len(za), rtol=1e-6, atol=1e-9)
    n = za.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        corr = np.nan_to_num(np.corrcoef(za.T, zb.T)[:n, n:])
    found = moments.similarity("correlation").numpy()
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, corr, rtol=1e-5, atol=1e-7)


def test_hidden_units_are_read_after_the_nonlinearity():
    model = perceptron(6, 7, 5, 3)
    a, b = random_state(model, 1), random_state(model, 2)
    x = torch.randn(23, 6)
    spec = find_symmetry(model, (x,))
    found = moments_of(model, spec, a, b, batches_of(x))
    for k in (0, 1):
        za, zb = (F.relu(layer_outputs(model, p, x, f"layers.{k}")) for p in (a, b))
        check(found[f"layers.{k}.weight[0]",], za, zb)


def test_every_position_of_a_map_is_a_sample():
    model, batches = architecture("cnn"), synthetic_batches("cnn", 11)
    a, b = random_state(model, 1), random_state(model, 2)
    found = moments_of(model, architecture_symmetry("cnn").spec, a, b, batches)
    for layer in ("conv1", "conv2"):
        za, zb = (
            F
            .max_pool2d(F.relu(layer_outputs(model, p, batches.inputs, layer)), 2)
            .permute(0, 2, 3, 1)
            .flatten(0, 2)
            for p in (a, b)
        )
        check(found[f"{layer}.weight[0]",], za, zb)


def test_every_position_of_a_sequence_is_a_sample():
    model, batches = architecture("sequence-cnn"), synthetic_batches("sequence-cnn", 11)
    a, b = random_state(model, 1), random_state(model, 2)
    found = moments_of(model, architecture_symmetry("sequence-cnn").spec, a, b, batches)
    za, zb = (
        F.relu(layer_outputs(model, p, batches.inputs, "conv1")).transpose(1, 2).flatten(0, 1)
        for p in (a, b)
    )
    check(found["conv1.weight[0]",], za, zb)


def test_units_within_heads_are_compared_jointly_with_their_heads():
    name = "causal attention"
    model, (x,) = network(name), network_inputs(name, 13)
    a, b = random_state(model, 1), random_state(model, 2)
    found = moments_of(model, network_symmetry(name).spec, a, b, batches_of(x))
    heads = "q.weight[0].0"
    record = found[heads, "q.weight[0].1"]
    assert record.sizes == (2, 3)
    # The last site with these groups is the keys.
    za, zb = (layer_outputs(model, p, x, "k").flatten(0, 1) for p in (a, b))
    check(record, za, zb)


def test_pieces_of_a_concatenation_are_compared_piece_by_piece():
    name = "dense concatenation"
    model, (x,) = network(name), network_inputs(name, 13)
    a, b = random_state(model, 1), random_state(model, 2)
    found = moments_of(model, network_symmetry(name).spec, a, b, batches_of(x))
    for layer in ("one", "two"):
        za, zb = (
            F.relu(layer_outputs(model, p, x, layer)).permute(0, 2, 3, 1).flatten(0, 2)
            for p in (a, b)
        )
        check(found[f"{layer}.weight[0]",], za, zb)


@pytest.mark.parametrize("size", [1, 3, 600])
def test_the_cut_into_batches_does_not_matter(size):
    model = perceptron(6, 7, 3)
    a, b = random_state(model, 1), random_state(model, 2)
    x = torch.randn(600, 6)
    spec = find_symmetry(model, (x,))
    (whole,) = moments_of(model, spec, a, b, batches_of(x, 77)).values()
    (cut,) = moments_of(model, spec, a, b, batches_of(x, size)).values()
    assert cut.samples == whole.samples == 600
    torch.testing.assert_close(cut.ab, whole.ab, rtol=1e-6, atol=1e-6)
    assert cut.ab.dtype == torch.float64


def test_a_dead_unit_correlates_with_nothing():
    model = perceptron(4, 5, 2)
    a, b = random_state(model, 1), random_state(model, 2)
    for state, unit, bias in ((a, 0, -100.0), (b, 3, -100.0), (a, 1, 7.0)):
        state["layers.0.weight"][unit] = 0  # unit 1 of A says 7 on every example
        state["layers.0.bias"][unit] = bias
    x = torch.randn(40, 4)
    spec = find_symmetry(model, (x,))
    (found,) = moments_of(model, spec, a, b, batches_of(x)).values()
    correlation = found.similarity("correlation")
    assert torch.isfinite(correlation).all()
    assert not correlation[[0, 1]].any()
    assert not correlation[:, 3].any()
    assert correlation.abs().max() <= 1 + 1e-9
    product = found.similarity("inner product")
    assert not product[0].any()
    assert product[1, 0] > 0


def test_a_large_offset_does_not_spoil_the_correlation():
    model = perceptron(4, 5, 2)
    a, b = random_state(model, 1), random_state(model, 2)
    a["layers.0.bias"] += 1000.0
    x = torch.randn(50, 4)
    spec = find_symmetry(model, (x,))
    (found,) = moments_of(model, spec, a, b, batches_of(x)).values()
    za, zb = (F.relu(layer_outputs(model, p, x, "layers.0")).double().numpy() for p in (a, b))
    expected = np.nan_to_num(np.corrcoef(za.T, zb.T)[:5, 5:])
    np.testing.assert_allclose(found.similarity("correlation").numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["inner product", "correlation"])
def test_the_pairing_of_every_layer_is_the_best_of_all(kind):
    model = perceptron(6, 5, 4, 3)
    a, b = random_state(model, 1), random_state(model, 2)
    x = torch.randn(60, 6)
    spec = find_symmetry(model, (x,))
    found = match(
        "activation", model, a, b, spec=spec, batches=batches_of(x), options={"similarity": kind}
    )
    moments = moments_of(model, spec, a, b, batches_of(x))
    total = 0.0
    for group, n in spec.sizes.items():
        similarity = moments[group,].similarity(kind)
        reached = float(similarity[torch.arange(n), found.permutations[group]].sum())
        assert reached == pytest.approx(best_assignment(similarity))
        total += reached
    assert found.objective[-1] == pytest.approx(total)
    assert found.objective_name.startswith(kind)


@pytest.mark.parametrize("kind", ["inner product", "correlation"])
@pytest.mark.parametrize("name", ["cnn", "vgg", "resnet-layer", "resnet-batch", "sequence-cnn"])
def test_a_planted_permutation_is_undone_on_deep_networks(name, kind):
    model, spec = architecture(name), architecture_symmetry(name).spec
    a = random_state(model, 5)
    batches = synthetic_batches(name, 40)
    planted = moving_permutations(spec.shapes, 1)
    b = permute(spec, planted, a)
    found = match(
        "activation", model, a, b, spec=spec, batches=batches, options={"similarity": kind}
    )
    again = permute(spec, found.permutations, b)
    moments = moments_of(model, spec, a, again, batches)
    for (group,), record in ((g, m) for g, m in moments.items() if len(g) == 1):
        similarity = record.similarity("correlation").diagonal()
        alive = record.aa > 0
        torch.testing.assert_close(
            similarity[alive], torch.ones_like(similarity[alive]), rtol=1e-4, atol=1e-4, msg=group
        )
        assert torch.equal(found.permutations[group][alive], invert(planted[group])[alive])


@pytest.mark.parametrize(
    "name",
    [
        "causal attention",
        "attention module",
        "attention by bmm",
        "grouped convolution",
        "group norm",
        "grouped-query attention",
    ],
)
def test_planted_heads_and_units_within_heads_are_undone(name):
    model, spec = network(name), network_symmetry(name).spec
    a = random_state(model, 2)
    x = network_inputs(name, 60, seed=3)[0]
    planted = moving_permutations(spec.shapes, 2)
    found = match("activation", model, a, permute(spec, planted, a), spec=spec,
                  batches=batches_of(x))  # fmt: skip
    undone = invert_permutations(spec, planted)
    assert all(torch.equal(found.permutations[g], undone[g]) for g in planted)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_group_of_every_network_has_a_site(name):
    derivation, sites = activation_sites(
        network(name), network_symmetry(name).spec, network_inputs(name)
    )
    carried = {g for site in sites for e in site.expressions for g in e.groups}
    assert carried >= set(network_symmetry(name).spec.sizes)
    assert derivation.spec.sizes == network_symmetry(name).spec.sizes


def test_only_the_first_examples_are_read_if_asked():
    model, batches = architecture("cnn"), synthetic_batches("cnn", 30)
    a, b = random_state(model, 1), random_state(model, 2)
    spec = architecture_symmetry("cnn").spec
    seen = []
    limited = match(
        "activation", model, a, b, spec=spec, batches=batches, options={"examples": 13},
        on_progress=lambda *report: seen.append(report[:2]),
    )  # fmt: skip
    taken = match("activation", model, a, b, spec=spec, batches=batches.take(13))
    assert limited.objective == taken.objective
    assert seen[-1] == (13, 13)


def test_stopped_work_decides_by_the_examples_read_so_far():
    model, batches = architecture("cnn"), synthetic_batches("cnn", 30)
    a, b = random_state(model, 1), random_state(model, 2)
    spec = architecture_symmetry("cnn").spec

    def stop_after_two(done, total, note):
        if done >= 20:
            raise StoppedError("enough")

    found = match("activation", model, a, b, spec=spec, batches=batches, on_progress=stop_after_two)
    part = match("activation", model, a, b, spec=spec, batches=batches.take(20))
    assert found.stopped
    assert not found.converged
    assert found.objective == part.objective
    assert all(torch.equal(found.permutations[g], part.permutations[g]) for g in spec.sizes)


def test_a_hand_written_spec_is_matched_under_its_own_names():
    model, batches = architecture("mlp"), synthetic_batches("mlp", 40)
    a, b = random_state(model, 1), random_state(model, 2)
    derived = architecture_symmetry("mlp").spec
    written = PermutationSpec.from_json(
        json.dumps({
            "layers.0.weight": ["P0", None], "layers.0.bias": ["P0"],
            "layers.1.weight": ["P1", "P0"], "layers.1.bias": ["P1"],
            "layers.2.weight": [None, "P1"],
        }),
        a,
    )  # fmt: skip
    one = match("activation", model, a, b, spec=derived, batches=batches)
    two = match("activation", model, a, b, spec=written, batches=batches)
    assert list(two.permutations) == ["P0", "P1"]
    assert all(
        torch.equal(p, q)
        for p, q in zip(one.permutations.values(), two.permutations.values(), strict=True)
    )


def test_a_group_that_no_activation_carries_is_refused():
    model, batches = architecture("mlp"), synthetic_batches("mlp", 10)
    a = random_state(model, 1)
    odd = PermutationSpec.from_json(json.dumps({"layers.0.weight": ["P0", None]}), a)
    with pytest.raises(SymmetryError, match="no activation of the model carries P0; use weight"):
        match("activation", model, a, a, spec=odd, batches=batches)


def test_a_group_may_sit_on_two_axes_of_one_value():
    name = "outer product"
    model, (x,) = network(name), network_inputs(name, 40)
    a, spec = random_state(model, 1), network_symmetry(name).spec
    planted = moving_permutations(spec.shapes, 3)
    found = match("activation", model, a, permute(spec, planted, a), spec=spec,
                  batches=batches_of(x))  # fmt: skip
    assert all(torch.equal(found.permutations[g], invert(planted[g])) for g in planted)


def test_joint_units_are_cut_at_concatenations_and_joined_over_products():
    p, q = AxisExpression(2, "p"), AxisExpression(3, "q")
    product = AxisExpression(6, None, "product", (p, q))
    concat = AxisExpression(8, None, "concat", (product, AxisExpression(2)))
    value = torch.arange(5 * 8).reshape(5, 8)
    ((atoms, units),) = joint_units(value, (AxisExpression(5), concat))
    assert [atom.group for atom in atoms] == ["p", "q"]
    assert torch.equal(units, value[:, :6])


def test_a_layer_that_evaluation_never_calls_does_no_harm():
    model = Net(
        lambda m, x: m.head(F.relu(m.fc(x))),
        fc=torch.nn.Linear(4, 5), head=torch.nn.Linear(5, 2), auxiliary=torch.nn.Linear(5, 3),
    ).eval()  # fmt: skip
    x = torch.randn(9, 4)
    spec = find_symmetry(model, (x,))
    a = random_state(model, 1)
    found = match("activation", model, a, a, spec=spec, batches=batches_of(x))
    for group, perm in identity_permutations(spec).items():
        assert torch.equal(found.permutations[group], perm)
