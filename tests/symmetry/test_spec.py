import json
import math

import pytest
import torch

from merging.schema.errors import SymmetryError
from merging.schema.records.symmetry import FrozenAxis
from merging.symmetry.spec import AxisExpression, PermutationSpec, SymmetryReport
from tests.cases import (
    CONFIGS,
    NETWORKS,
    architecture,
    architecture_symmetry,
    network,
    network_symmetry,
)

PARAMS = {"w": torch.zeros(6, 4), "b": torch.zeros(6), "steps": torch.tensor(1)}


def read(axes):
    return PermutationSpec.from_json(json.dumps(axes), PARAMS)


def test_a_hand_written_spec_is_read():
    spec = read({"w": ["p", None], "b": ["p"]})
    assert spec.sizes == {"p": 6}
    assert spec.places() == {"p": (("w", 0), ("b", 0))}
    assert spec.axes["steps"] == ()


def test_products_and_concatenations_are_read():
    spec = read({"w": [{"product": [["p", 3], [None, 2]]}, {"concat": [["q", 3], [None, 1]]}]})
    assert spec.sizes == {"p": 3, "q": 3}
    first, second = spec.axes["w"]
    assert (first.kind, first.size, first.groups) == ("product", 6, ("p",))
    assert (second.kind, second.size, second.groups) == ("concat", 4, ("q",))


def test_nested_expressions_are_read_and_their_groups_listed_once_in_order():
    inner = {"concat": [["q", 1], ["p", 2]]}
    spec = read({"w": [{"product": [["p", 2], inner]}, None]})
    assert spec.axes["w"][0].groups == ("p", "q")
    assert [atom.size for atom in spec.axes["w"][0].atoms()] == [2, 1, 2]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_derived_spec_survives_json(name):
    spec = network_symmetry(name).spec
    again = PermutationSpec.from_json(spec.to_json(), network(name).state_dict())
    assert again.axes == dict(spec.axes)
    assert again.sizes == spec.sizes
    assert again.places() == spec.places()


@pytest.mark.parametrize("name", CONFIGS)
def test_the_spec_of_every_architecture_survives_json(name):
    spec = architecture_symmetry(name).spec
    again = PermutationSpec.from_json(spec.to_json(), architecture(name).state_dict())
    assert again.axes == dict(spec.axes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "not of the form"),
        ("[1, 2]", "not of the form"),
        ('{"v": ["p"]}', "names 'v', which the parameters do not have"),
        ('{"w": ["p"]}', "not of the form"),
        ('{"w": [3, null]}', "a group's name or null, not 3"),
        ('{"w": [{"sum": [["p", 6]]}, null]}', "unknown kind of axis 'sum'"),
        ('{"w": [{"product": [["p", 3]]}, null]}', r"'w' has shape \[6, 4\], .* expects \[3, 4\]"),
        ('{"w": [{"product": ["p", "q"]}, null]}', "not of the form"),
        ('{"w": [{}, null]}', "not of the form"),
        ('{"w": ["p", "p"]}', "'w' axis 1 has 4 units, but permutation 'p' has 6"),
        ('{"w": ["p", null], "b": [{"product": [["p", 2], [null, 3]]}]}', "'b' axis 0 has 2 units"),
    ],
)
def test_what_is_no_spec_of_these_parameters_is_refused(text, message):
    with pytest.raises(SymmetryError, match=message):
        PermutationSpec.from_json(text, PARAMS)


def test_an_atom_whose_group_is_no_name_is_refused():
    text = '{"w": [{"product": [[["p"], 3], [null, 2]]}, null]}'
    with pytest.raises(SymmetryError, match="not of the form"):
        PermutationSpec.from_json(text, PARAMS)


def test_the_number_of_orderings_is_a_product_of_factorials():
    spec = read({"w": ["p", "q"], "b": ["p"]})
    assert spec.log10_orderings == pytest.approx(math.log10(math.factorial(6) * math.factorial(4)))


def test_three_layers_of_512_units_have_ten_to_the_3499_orderings():
    group = {f"w{k}": (AxisExpression(512, f"p{k}"),) for k in range(3)}
    assert PermutationSpec(group).log10_orderings == pytest.approx(3499.6, abs=0.1)


def test_freezing_takes_a_group_out_everywhere_and_notes_why():
    old = FrozenAxis("steps", 0, 2, "before")
    spec = read({"w": ["p", {"concat": [["q", 3], [None, 1]]}], "b": ["p"]})
    spec = PermutationSpec(spec.axes, SymmetryReport((old,), ("fft",), 0.5))
    less = spec.without(frozenset({"p"}), "because")
    assert less.sizes == {"q": 3}
    assert less.report.frozen == (
        old, FrozenAxis("w", 0, 6, "because"), FrozenAxis("b", 0, 6, "because")
    )  # fmt: skip
    assert less.report.unknown_operators == ("fft",)
    assert spec.sizes == {"p": 6, "q": 3}


def test_a_spec_is_checked_against_names_and_shapes():
    spec = read({"w": ["p", None]})
    spec.check(PARAMS)
    with pytest.raises(SymmetryError, match="names 'b', which the parameters do not have"):
        spec.check({name: value for name, value in PARAMS.items() if name != "b"})
    with pytest.raises(SymmetryError, match=r"'w' has shape \[6\]"):
        spec.check({**PARAMS, "w": torch.zeros(6)})


NESTED = {
    "w": [{"product": [["h", 2], {"group": "d", "within": ["h"], "size": 3}]}, None],
    "b": [{"product": [["h", 2], {"group": "d", "within": ["h"], "size": 3}]}],
}


def test_nested_groups_are_read_and_written_and_counted_for_every_parent():
    spec = read(NESTED)
    assert spec.sizes == {"h": 2, "d": 3}
    assert spec.shapes == {"h": (2,), "d": (2, 3)}
    assert (spec.within, spec.nested_in("h"), spec.nested_in("d")) == ({"d": ("h",)}, ("d",), ())
    assert spec.units == 2 + 2 * 3
    assert spec.log10_orderings == pytest.approx(math.log10(2 * 6**2))
    again = PermutationSpec.from_json(spec.to_json(), PARAMS)
    assert again.axes == spec.axes


def test_a_parent_may_keep_its_order_and_may_be_on_another_axis():
    spec = read({"w": [{"fixed": "tokens"}, {"group": "d", "within": ["tokens"]}]})
    assert spec.shapes == {"d": (6, 4)}
    assert PermutationSpec.from_json(spec.to_json(), PARAMS).axes == spec.axes


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"w": [{"group": "d", "within": ["h"]}, None]}, r"'w' axis 0 carries 'd', .* nested in h"),
        (NESTED | {"b": [{"product": [["h", 2], ["d", 3]]}]}, "'b' axis 0 carries 'd'"),
        ({"w": ["h", {"group": "d", "within": ["h"]}], "b": [["d", 6]]}, "'d'"),
        ({"w": [{"group": "d", "inside": ["h"]}, None]}, "a nested group is"),
        ({"w": [{"product": [["h", 0], ["d", 6]]}, None]}, "at least one unit, not 0"),
        (
            {"w": [{"product": [["g", 2], {"group": "h", "within": ["g"], "size": 3}]},
                   {"group": "d", "within": ["h"]}]},
            "the same parents, and theirs",
        ),
    ],
    ids=["no parent", "not nested elsewhere", "other sizes", "unknown key", "empty", "not closed"],
)  # fmt: skip
def test_nested_groups_that_cannot_be_are_refused(axes, message):
    with pytest.raises(SymmetryError, match=message):
        read(axes)


def test_a_frozen_parent_keeps_its_name_and_what_is_nested_in_it():
    spec = read(NESTED).without(frozenset({"h"}), "by hand")
    assert spec.shapes == {"d": (2, 3)}
    assert [frozen.reason for frozen in spec.report.frozen] == ["by hand"] * 2
    assert read(NESTED).without(frozenset({"d"}), "by hand").shapes == {"h": (2,)}


def test_sharing_gives_a_nested_group_one_order_for_all():
    spec = read(NESTED).sharing(frozenset({"d"}), "one order for all")
    assert spec.shapes == {"h": (2,), "d": (3,)}
    assert {frozen.reason for frozen in spec.report.frozen} == {"one order for all"}
