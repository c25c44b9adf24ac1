import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from merging.schema.errors import SymmetryError
from merging.symmetry.permutation import (
    axis_index,
    check_permutations,
    compose,
    compose_permutations,
    cycles,
    flat_permutation,
    identity_permutations,
    invert,
    invert_permutations,
    permute,
    permute_tensor,
    random_permutations,
)
from merging.symmetry.spec import AxisExpression, PermutationSpec
from tests.cases import NETWORKS, few, network, network_symmetry, random_state
from tests.oracles import moving_permutations, permuted, source_of

P, Q = AxisExpression(3, "p"), AxisExpression(2, "q")
FIXED = AxisExpression(2)


def product(*parts):
    size = 1
    for part in parts:
        size *= part.size
    return AxisExpression(size, None, "product", parts)


def concat(*parts):
    return AxisExpression(sum(part.size for part in parts), None, "concat", parts)


permutations = st.integers(1, 8).flatmap(
    lambda n: st.permutations(range(n)).map(lambda order: torch.tensor(list(order)))
)
pairs = st.integers(1, 8).flatmap(
    lambda n: st.tuples(
        *[st.permutations(range(n)).map(lambda order: torch.tensor(list(order)))] * 2
    )
)
atoms = st.sampled_from([P, Q, FIXED, AxisExpression(1), AxisExpression(3)])
expressions = st.recursive(
    atoms,
    lambda inner: st.builds(
        lambda kind, parts: kind(*parts),
        st.sampled_from([product, concat]),
        st.lists(inner, min_size=2, max_size=3),
    ),
    max_leaves=4,
)


@few
@given(permutations)
def test_an_inverse_undoes_a_permutation_from_both_sides(perm):
    units = torch.arange(len(perm)) * 10
    assert torch.equal(units[perm][invert(perm)], units)
    assert torch.equal(units[invert(perm)][perm], units)
    assert torch.equal(compose(perm, invert(perm)), torch.arange(len(perm)))


@few
@given(pairs)
def test_composing_is_applying_one_after_the_other(two):
    first, then = two
    units = torch.arange(len(first)) * 10
    assert torch.equal(units[first][then], units[compose(first, then)])


@few
@given(permutations)
def test_cycles_are_those_of_walking_until_home(perm):
    lengths, left = [], set(range(len(perm)))
    while left:
        unit, length = left.pop(), 1
        start, unit = unit, int(perm[unit])
        while unit != start:
            left.discard(unit)
            unit, length = int(perm[unit]), length + 1
        lengths.append(length)
    assert cycles(perm) == sorted(lengths, reverse=True)
    assert sum(cycles(perm)) == len(perm)


def test_unit_i_of_the_result_is_unit_perm_i_of_the_model():
    spec = PermutationSpec({"w": (P, AxisExpression(1))})
    moved = permute(spec, {"p": torch.tensor([2, 0, 1])}, {"w": torch.tensor([[0], [10], [20]])})
    assert moved["w"].flatten().tolist() == [20, 0, 10]


@few
@given(expressions, st.integers(0, 9))
def test_an_axis_is_indexed_digit_by_digit(expression, seed):
    perms = moving_permutations({"p": 3, "q": 2}, seed)
    expected = [source_of(expression, perms, i) for i in range(expression.size)]
    index = axis_index(expression, perms)
    assert (list(range(expression.size)) if index is None else index.tolist()) == expected
    assert sorted(expected) == list(range(expression.size))
    assert (index is None) == (not expression.groups)


@pytest.mark.parametrize("name", NETWORKS)
def test_permuting_is_moving_every_entry_by_itself(name):
    spec = network_symmetry(name).spec
    params = random_state(network(name), 4)
    perms = moving_permutations(spec.shapes, 4)
    moved, expected = permute(spec, perms, params), permuted(spec, perms, params)
    assert all(torch.equal(moved[key], expected[key]) for key in params)


def test_a_group_on_two_axes_and_in_products_is_permuted_on_all():
    axes = (P, concat(product(P, Q), FIXED, P))
    spec = PermutationSpec({"w": axes})
    params = {"w": torch.arange(33.0).reshape(3, 11)}
    for p, q in itertools.product(([2, 0, 1], [1, 0, 2]), ([0, 1], [1, 0])):
        perms = {"p": torch.tensor(p), "q": torch.tensor(q)}
        moved = permute(spec, perms, params)["w"]
        assert torch.equal(moved, permuted(spec, perms, params)["w"])


def test_permuting_writes_into_nothing_and_shares_what_does_not_move():
    spec = PermutationSpec({"w": (P,), "b": (FIXED,)})
    params = {"w": torch.arange(3.0), "b": torch.zeros(2), "steps": torch.tensor(7)}
    before = {name: value.clone() for name, value in params.items()}
    perms = {"p": torch.tensor([1, 2, 0])}
    moved = permute(spec, perms, params)
    assert list(moved) == list(params)
    assert moved["b"] is params["b"]
    assert moved["steps"] is params["steps"]
    moved["w"].zero_()
    assert all(torch.equal(params[name], before[name]) for name in params)
    assert perms["p"].tolist() == [1, 2, 0]


def test_groups_that_are_left_out_keep_their_order():
    spec = PermutationSpec({"w": (P, Q)})
    params = {"w": torch.arange(6).reshape(3, 2)}
    assert torch.equal(permute(spec, {}, params)["w"], params["w"])
    moved = permute(spec, {"q": torch.tensor([1, 0])}, params)
    assert moved["w"].tolist() == [[1, 0], [3, 2], [5, 4]]


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool]
)
def test_any_dtype_is_permuted_and_kept(dtype):
    value = torch.tensor([0, 1, 1]).to(dtype)
    moved = permute_tensor(value, (P,), {"p": torch.tensor([1, 0, 2])})
    assert moved.dtype == dtype
    assert moved.tolist() == [1, 0, 1]


def test_random_permutations_come_from_the_generator_alone():
    spec = network_symmetry("dense concatenation").spec
    one = random_permutations(spec, torch.Generator().manual_seed(3))
    torch.manual_seed(99)
    two = random_permutations(spec, torch.Generator().manual_seed(3))
    other = random_permutations(spec, torch.Generator().manual_seed(4))
    assert all(torch.equal(one[group], two[group]) for group in spec.sizes)
    assert any(not torch.equal(one[group], other[group]) for group in spec.sizes)
    check_permutations(spec, one)


def test_identity_permutations_move_nothing():
    spec = network_symmetry("grouped convolution").spec
    params = random_state(network("grouped convolution"), 0)
    same = permute(spec, identity_permutations(spec), params)
    assert all(torch.equal(same[name], params[name]) for name in params)


SPEC = PermutationSpec({"w": (P, Q)})
PARAMS = {"w": torch.zeros(3, 2)}


@pytest.mark.parametrize(
    ("perms", "message"),
    [
        ({"r": torch.arange(3)}, "no group 'r'; it has p, q"),
        ({"p": torch.arange(2)}, r"'p' is torch.int64 \[2\]; expected int64 \[3\]"),
        ({"p": torch.arange(3.0)}, r"'p' is torch.float32 \[3\]"),
        ({"p": torch.arange(3, dtype=torch.int32)}, "'p' is torch.int32"),
        ({"p": torch.zeros(3, dtype=torch.int64)}, "'p' names a unit twice"),
        ({"p": torch.tensor([0, 1, 3])}, "expected 0 to 2, once each"),
        ({"p": torch.tensor([0, 1, -1])}, "expected 0 to 2, once each"),
        ({"p": torch.eye(3, dtype=torch.int64)}, r"'p' is torch.int64 \[3, 3\]"),
    ],
)
def test_what_is_no_permutation_of_its_group_is_refused(perms, message):
    with pytest.raises(SymmetryError, match=message):
        permute(SPEC, perms, PARAMS)


def test_a_spec_that_does_not_fit_the_parameters_is_refused():
    with pytest.raises(SymmetryError, match="names 'w', which the parameters do not have"):
        permute(SPEC, {}, {"v": torch.zeros(3, 2)})
    with pytest.raises(SymmetryError, match=r"'w' has shape \[3, 4\], but .* expects \[3, 2\]"):
        permute(SPEC, {}, {"w": torch.zeros(3, 4)})


@pytest.mark.parametrize("name", ["grouped-query attention", "grouped convolution", "group norm"])
def test_nested_permutations_are_undone_and_composed_with_their_parents(name):
    spec, params = network_symmetry(name).spec, random_state(network(name), 0)
    first, then = (random_permutations(spec, torch.Generator().manual_seed(k)) for k in (0, 1))
    moved = permute(spec, first, params)
    back = permute(spec, invert_permutations(spec, first), moved)
    assert all(torch.equal(back[key], params[key]) for key in params)
    twice = permute(spec, compose_permutations(spec, first, then), params)
    expected = permute(spec, then, moved)
    assert all(torch.equal(twice[key], expected[key]) for key in params)


def test_rows_go_by_the_parents_of_a():
    h, d = AxisExpression(2, "h"), AxisExpression(3, "d", within=("h",))
    perms = {"h": torch.tensor([1, 0]), "d": torch.tensor([[1, 2, 0], [0, 2, 1]])}
    value = torch.tensor([0, 1, 2, 10, 11, 12])
    moved = permute_tensor(value, (product(h, d),), perms)
    assert moved.tolist() == [11, 12, 10, 0, 2, 1]
    spec = PermutationSpec({"w": (product(h, d),)})
    assert flat_permutation(spec, perms, "d").tolist() == [4, 5, 3, 0, 2, 1]
    assert flat_permutation(spec, perms, "h").tolist() == [1, 0]
    on_two_axes = permute_tensor(value.reshape(2, 3), (h, d), perms)
    assert on_two_axes.flatten().tolist() == moved.tolist()
    with pytest.raises(SymmetryError, match="'d' is nested in h, on another axis"):
        axis_index(d, perms)


def test_one_row_stands_for_all_of_a_nested_group():
    spec, params = network_symmetry("group norm").spec, random_state(network("group norm"), 0)
    (nested,) = spec.within
    one = torch.tensor([2, 0, 1])
    rows = permute(spec, {nested: one.expand(2, 3)}, params)
    assert all(torch.equal(permute(spec, {nested: one}, params)[k], rows[k]) for k in params)
    with pytest.raises(SymmetryError, match=r"\[3, 3\]; expected int64 \[2, 3\]"):
        permute(spec, {nested: one.expand(3, 3)}, params)
