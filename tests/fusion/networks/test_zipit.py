"""Zipping: what it leaves alone, what it puts together, and what it refuses."""

import pytest
import torch
from torch import nn

from merging.files.data.batches import Batches
from merging.fusion.networks.zipit import multi_head, zip_models
from merging.landscape.evaluate.evaluation import evaluate
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

NAMES = ("cnn", "vgg", "resnet-batch", "resnet-layer", "sequence-cnn")


def batches(x):
    return Batches(x, torch.zeros(len(x), dtype=torch.int64), 50)


def _close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "count"), [(name, 2) for name in NAMES] + [("cnn", 3)])
def test_copies_of_a_model_are_zipped_into_that_model(name, count):
    model, spec = architecture(name), architecture_symmetry(name).spec
    (x,) = architecture_inputs(name, 60)
    state = random_state(model, 1)
    found = zip_models(spec, model, [state] * count, batches(x))
    (merged,) = found.heads
    assert list(merged) == list(state)
    _close(outputs(model, merged, x), outputs(model, state, x))


@pytest.mark.parametrize("name", ["cnn", "resnet-batch", "sequence-cnn", "wider resnet-layer"])
def test_permuted_copies_are_zipped_into_the_same_function(name):
    if name in CONFIGS:
        model, spec = architecture(name), architecture_symmetry(name).spec
        (x,) = architecture_inputs(name, 60)
    else:  # LayerNorm over very few units makes them copies of one another
        model = build_model({**CONFIGS["resnet-layer"], "width": 6}, seed=1)
        (x,) = architecture_inputs("resnet-layer", 60)
        spec = find_symmetry(model, (x[:2],))
    state = random_state(model, 1)
    copy = permute(spec, moving_permutations(spec.sizes, 2), state)
    (merged,) = zip_models(spec, model, [state, copy], batches(x)).heads
    _close(outputs(model, merged, x), outputs(model, state, x))


def _doubled(narrow: dict, order: torch.Tensor) -> dict:
    """A model of twice the width with every unit twice, of the same function."""
    twice = torch.arange(len(narrow["layers.0.bias"])).repeat_interleave(2)[order]
    return {
        "layers.0.weight": narrow["layers.0.weight"][twice],
        "layers.0.bias": narrow["layers.0.bias"][twice],
        "layers.1.weight": narrow["layers.1.weight"][:, twice] / 2,
        "layers.1.bias": narrow["layers.1.bias"],
    }


def test_units_that_a_model_has_twice_are_put_together_and_make_room_for_the_other(generator):
    narrow, wide = perceptron(5, 4, 3), perceptron(5, 8, 3)
    small = [random_state(narrow, seed) for seed in (1, 2)]
    large = [_doubled(state, torch.randperm(8, generator=generator)) for state in small]
    x = torch.randn(200, 5, generator=generator)
    spec = find_symmetry(wide, (x[:2],))
    found = zip_models(spec, wide, large, batches(x))
    (group,) = spec.sizes
    assert found.share_within(group) == 1
    both = sum(outputs(narrow, state, x) for state in small) / 2  # no permutation gets there
    _close(outputs(wide, found.heads[0], x), both)


def test_without_merges_within_a_model_it_is_a_permutation_and_a_mean(generator):
    model = perceptron(5, 8, 3)
    states = [random_state(model, seed) for seed in (1, 2)]
    x = torch.randn(200, 5, generator=generator)
    spec = find_symmetry(model, (x[:2],))
    found = zip_models(spec, model, states, batches(x), options={"within": 0.0})
    (group,) = spec.sizes
    labels = found.clusters[group]
    assert all(row.sort().values.tolist() == list(range(8)) for row in labels)
    aligned = [
        permute(spec, {group: torch.argsort(row)}, s) for row, s in zip(labels, states, strict=True)
    ]
    middle = lerp(*aligned, 0.5)
    assert all(torch.allclose(found.heads[0][name], middle[name]) for name in middle)


def test_up_to_a_layer_the_models_keep_their_own_heads(generator):
    model = perceptron(5, 8, 6, 3)
    x = torch.randn(200, 5, generator=generator)
    spec = find_symmetry(model, (x[:2],))
    state = random_state(model, 1)
    planted = moving_permutations(spec.sizes, 2)
    copy = permute(spec, planted, state)
    copy["layers.2.weight"] = 2 * copy["layers.2.weight"]  # another task on the same features
    first = next(g for g, places in spec.places().items() if ("layers.0.weight", 0) in places)
    found = zip_models(spec, model, [state, copy], batches(x), groups=[first])
    assert found.shared == {"layers.0.weight", "layers.0.bias"}
    module = multi_head(model, found)
    result = module(x)
    for head, own in zip(result, (state, copy), strict=True):
        _close(head, outputs(model, own, x))
    numbers = {id(p): p.numel() for p in module.parameters()}
    whole = sum(p.numel() for p in model.parameters())
    assert sum(numbers.values()) == 2 * whole - (5 * 8 + 8)


def test_partial_zipping_goes_on_from_the_input(generator):
    model = perceptron(5, 8, 6, 3)
    x = torch.randn(20, 5, generator=generator)
    spec = find_symmetry(model, (x[:2],))
    states = [random_state(model, seed) for seed in (1, 2)]
    last = next(g for g, places in spec.places().items() if ("layers.1.weight", 0) in places)
    with pytest.raises(
        MergingError, match=r"'layers.1.weight' makes it from .* which is not zipped"
    ):
        zip_models(spec, model, states, batches(x), groups=[last])
    with pytest.raises(MergingError, match=r"the spec has no group 'absent'"):
        zip_models(spec, model, states, batches(x), groups=["absent"])


def test_a_depth_counts_groups_from_the_input_on(generator):
    model = perceptron(5, 8, 6, 3)
    x = torch.randn(60, 5, generator=generator)
    spec = find_symmetry(model, (x[:2],))
    states = [random_state(model, seed) for seed in (1, 2)]
    first = next(g for g, places in spec.places().items() if ("layers.0.weight", 0) in places)
    named = zip_models(spec, model, states, batches(x), groups=[first])
    counted = zip_models(spec, model, states, batches(x), options={"depth": 1})
    assert counted.shared == named.shared
    for ours, theirs in zip(counted.heads, named.heads, strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    with pytest.raises(MergingError, match=r"3 groups cannot be zipped: the network has 2"):
        zip_models(spec, model, states, batches(x), options={"depth": 3})
    with pytest.raises(MergingError, match=r"the groups to zip, or how many of them .* not both"):
        zip_models(spec, model, states, batches(x), groups=[first], options={"depth": 1})


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("attention by matmul", "multiplied with others|shares an axis|is nested"),
        ("group norm", "shares an axis|is nested"),
        ("grouped convolution", "convolution in groups|shares an axis|is nested"),
        ("tied embeddings", "two layers share it"),
    ],
)
def test_groups_that_are_not_plain_are_refused_by_name(name, why):
    model, spec = network(name), network_symmetry(name).spec
    states = [random_state(model, seed) for seed in (1, 2)]
    with pytest.raises(MergingError, match=rf"units of the group '.*' cannot be averaged.*({why})"):
        zip_models(spec, model, states, batches(network_inputs(name)[0]))


def test_trained_models_are_better_zipped_than_averaged():
    pair = load_pair("digits-mlp-256")
    spec = find_symmetry(pair.model, (pair.data.test.inputs[:2],))
    states = [pair.params_a, pair.params_b]
    before = [{name: value.clone() for name, value in state.items()} for state in states]
    (merged,) = zip_models(spec, pair.model, states, pair.data.train).heads
    naive = evaluate(pair.model, lerp(*states, 0.5), pair.data.test).accuracy[0]
    zipped = evaluate(pair.model, merged, pair.data.test).accuracy[0]
    assert zipped > naive + 0.03
    for state, kept in zip(states, before, strict=True):
        assert all(torch.equal(state[name], kept[name]) for name in kept)


def test_a_zip_without_examples_or_of_other_models_is_refused(generator):
    model, x = perceptron(5, 8, 3), torch.randn(20, 5, generator=generator)
    spec, state = find_symmetry(model, (x[:2],)), random_state(model, 1)
    with pytest.raises(DataError, match=r"none were given"):
        zip_models(spec, model, [state, state], [])
    with pytest.raises(MergingError, match=r"no models to zip"):
        zip_models(spec, model, [], batches(x))
    with pytest.raises(ArchitectureMismatchError, match=r"layers.0.weight"):
        zip_models(spec, model, [state, random_state(perceptron(5, 9, 3), 1)], batches(x))


def test_zipping_reports_progress_and_can_be_stopped(generator):
    model, x = perceptron(5, 8, 3), torch.randn(120, 5, generator=generator)
    spec, state = find_symmetry(model, (x[:2],)), random_state(model, 1)
    told = []
    zip_models(
        spec, model, [state] * 2, batches(x), on_progress=lambda d, t, n: told.append((d, t))
    )
    assert told == [(50, 120), (100, 120), (120, 120)]

    def stop(*_):
        raise StoppedError("enough")

    with pytest.raises(StoppedError, match="enough"):
        zip_models(spec, model, [state] * 2, batches(x), on_progress=stop)


def test_a_dead_unit_is_put_together_with_another_dead_one(generator):
    model = perceptron(5, 6, 3)
    state = random_state(model, 1)
    state["layers.0.bias"][2:4] = -100.0
    x = torch.randn(100, 5, generator=generator)
    spec = find_symmetry(model, (x[:2],))
    (merged,) = zip_models(spec, model, [state, state], batches(x)).heads
    _close(outputs(model, merged, x), outputs(model, state, x))


def test_the_multi_head_module_leaves_the_architecture_as_it_was(generator):
    model = perceptron(5, 8, 3)
    x = torch.randn(50, 5, generator=generator)
    spec = find_symmetry(model, (x[:2],))
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    found = zip_models(
        spec, model, [random_state(model, s) for s in (1, 2)], batches(x), groups=[*spec.sizes]
    )
    assert isinstance(multi_head(model, found), nn.Module)
    assert all(torch.equal(model.state_dict()[name], kept[name]) for name in kept)
