"""Specs that a person wrote or changed: proven, refused by the group's name, read in order."""

from __future__ import annotations

import json

import pytest
import torch

import merging
from merging.schema.errors import SymmetryError
from merging.symmetry import check_by_hand, frozen, read_spec, with_reasons

GOOD = {
    "layers.0.weight": ["P0", None],
    "layers.0.bias": ["P0"],
    "layers.1.weight": ["P1", "P0"],
    "layers.1.bias": ["P1"],
    "layers.2.weight": ["P2", "P1"],
    "layers.2.bias": ["P2"],
    "layers.3.weight": [None, "P2"],
}


@pytest.fixture(scope="module")
def pair():
    return merging.load_pair("digits-mlp-256")


@pytest.fixture(scope="module")
def inputs(pair):
    return (pair.data.test.inputs[:2],)


@pytest.fixture(scope="module")
def derived(pair, inputs):
    return merging.find_symmetry(pair.model, inputs)


def test_a_right_spec_passes(pair, inputs):
    check_by_hand(pair.model, read_spec(json.dumps(GOOD), pair.params_a), inputs)


def test_the_order_is_the_model_s_whatever_the_file_s_is(pair):
    backwards = read_spec(json.dumps(dict(reversed(GOOD.items()))), pair.params_a)
    assert list(backwards.axes) == list(pair.params_a)
    assert list(backwards.sizes) == ["P0", "P1", "P2"]


def test_a_group_that_leaves_an_axis_out_is_named_with_its_places(pair, inputs):
    wrong = {**GOOD, "layers.1.bias": [None]}
    with pytest.raises(SymmetryError, match=r"group 'P1' on layers\.1\.weight\[0\].* changes them"):
        check_by_hand(pair.model, read_spec(json.dumps(wrong), pair.params_a), inputs)


def test_permuted_classes_are_refused(pair, inputs):
    wrong = {**GOOD, "layers.3.weight": ["out", "P2"], "layers.3.bias": ["out"]}
    with pytest.raises(SymmetryError, match=r"group 'out' on layers\.3\.weight\[0\], layers\.3\."):
        check_by_hand(pair.model, read_spec(json.dumps(wrong), pair.params_a), inputs)


def test_units_under_two_names_are_refused_with_both(pair, inputs):
    wrong = {**GOOD, "layers.1.weight": ["P1", "Q"]}
    with pytest.raises(SymmetryError, match=r"group 'P0' .*group 'Q' on layers\.1\.weight\[1\]"):
        check_by_hand(pair.model, read_spec(json.dumps(wrong), pair.params_a), inputs)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1, 2]", "not of the form"),
        ("{", "not of the form"),
        ('{"layers.9.weight": ["P0", null]}', r"names 'layers\.9\.weight'"),
        ('{"layers.0.weight": ["P0"]}', "not of the form"),
        ('{"layers.0.weight": ["P0", "P0"]}', r"'layers\.0\.weight' axis 1 has 64 units"),
        ("[" * 100_000, "not of the form"),
        (" " * 6_000_000, "at most 5,000,000 are read"),
    ],
)
def test_what_is_no_spec_of_this_model_is_refused(text, words, pair):
    with pytest.raises(SymmetryError, match=words):
        read_spec(text, pair.params_a)


def test_frozen_groups_keep_their_order_and_the_rest_is_certified(pair, inputs, derived):
    spec = frozen(derived, ["layers.1.weight[0]"])
    assert list(spec.sizes) == ["layers.0.weight[0]", "layers.2.weight[0]"]
    check_by_hand(pair.model, spec, inputs)
    perms = merging.random_permutations(spec, torch.Generator().manual_seed(0))
    moved = merging.permute(spec, perms, pair.params_a)
    assert torch.equal(moved["layers.1.bias"], pair.params_a["layers.1.bias"])


def test_a_group_that_is_not_there_cannot_be_frozen(derived):
    with pytest.raises(SymmetryError, match=r"no permutation group 'P9' to freeze; the groups are"):
        frozen(derived, ["P9"])


def test_what_was_frozen_by_hand_is_said_beside_what_was_fixed(derived, pair):
    text = frozen(derived, ["layers.1.weight[0]"]).to_json()
    reasons = with_reasons(read_spec(text, pair.params_a), derived).report.frozen
    by_hand = {(f.parameter, f.axis) for f in reasons if f.reason == "frozen by hand"}
    assert by_hand == {("layers.1.weight", 0), ("layers.1.bias", 0), ("layers.2.weight", 1)}
    assert set(derived.report.frozen) < set(reasons)
