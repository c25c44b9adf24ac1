"""Groups nested in others, solved together with these, and compared with brute force."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from merging.matching import describe_units, match
from merging.matching.problem import MatchProblem
from merging.matching.search.coordinate_descent import descend
from merging.matching.search.nested import Products, Slices, look_inside, step
from merging.matching.search.unit_slices import weight_terms
from merging.matching.search.weight_similarity import WeightSimilarity
from merging.models.zoo.pairs import load_pair
from merging.symmetry import find_symmetry
from merging.symmetry.permutation import (
    flat_permutation,
    identity_permutations,
    invert_permutations,
    permute,
    random_permutations,
)
from tests.cases import NETWORKS, Net, network, network_symmetry, random_state
from tests.oracles import all_permutations, moving_permutations

NESTED = [name for name in NETWORKS if network_symmetry(name).spec.within]
every_nested = pytest.mark.parametrize("name", NESTED)


def problem_of(name, b=2):
    model, spec = network(name), network_symmetry(name).spec
    return MatchProblem(model, spec, random_state(model, 1), random_state(model, b))


def similarity_of(problem):
    return WeightSimilarity(problem.spec, problem.params_a, problem.params_b, problem.weights)


def norm_residual(channels=6, groups=3):
    """A residual stream with norms over groups of channels: both sit twice on a kernel."""
    torch.manual_seed(0)
    conv = [nn.Conv1d(1, channels, 3), nn.Conv1d(channels, channels, 3, padding=1)]
    model = Net(
        lambda m, x: m.head(m.first(x := m.norm(m.stem(x))).relu().add(x).mean(2)),
        stem=conv[0], first=conv[1], norm=nn.GroupNorm(groups, channels),
        head=nn.Linear(channels, 2),
    ).eval()  # fmt: skip
    return model, find_symmetry(model, (torch.randn(2, 1, 8),))


@every_nested
@pytest.mark.parametrize("seed", range(3))
def test_planted_nested_permutations_are_undone(name, seed):
    model, spec = network(name), network_symmetry(name).spec
    a = random_state(model, 5)
    planted = random_permutations(spec, torch.Generator().manual_seed(seed))
    found = match("weight", model, a, permute(spec, planted, a), spec=spec)
    undone = invert_permutations(spec, planted)
    assert all(torch.equal(found.permutations[g], undone[g]) for g in undone)


@pytest.mark.parametrize("seed", range(3))
def test_planted_orders_of_a_residual_stream_of_groups_are_undone(seed):
    model, spec = norm_residual()
    assert set(spec.shapes.values()) == {(3,), (3, 2)}
    a = random_state(model, 5)
    planted = random_permutations(spec, torch.Generator().manual_seed(seed))
    found = match("weight", model, a, permute(spec, planted, a), spec=spec)
    undone = invert_permutations(spec, planted)
    assert all(torch.equal(found.permutations[g], undone[g]) for g in undone)


def test_planted_heads_and_units_of_the_bundled_transformer_are_undone():
    pair = load_pair("mnist-vit")
    spec = find_symmetry(pair.model, (pair.data.test.inputs[:2],))
    assert sorted(map(len, spec.shapes.values())).count(2) == 6
    planted = random_permutations(spec, torch.Generator().manual_seed(1))
    moved = permute(spec, planted, pair.params_a)
    found = match("weight", pair.model, pair.params_a, moved, spec=spec)
    undone = invert_permutations(spec, planted)
    assert all(torch.equal(found.permutations[g], undone[g]) for g in undone)


def test_orders_of_their_own_bring_two_transformers_nearer_than_one_order_for_all():
    pair = load_pair("mnist-vit")
    spec = find_symmetry(pair.model, (pair.data.test.inputs[:2],))
    shared = spec.sharing(frozenset(spec.within), "for comparison")
    own, one = (
        match("weight", pair.model, pair.params_a, pair.params_b, spec=s).objective[-1]
        for s in (spec, shared)
    )
    assert own > 1.02 * one


@every_nested
def test_a_step_gains_what_the_objective_gains(name):
    problem = problem_of(name)
    similarity, spec = similarity_of(problem), problem.spec
    perms = moving_permutations(spec.shapes, 3)
    before = similarity.objective(perms)
    for group in sorted(similarity.nested):
        gain, update = step(spec, group, perms, weight_terms(similarity, group, perms))
        assert set(update) == {group, *spec.nested_in(group)}
        after = similarity.objective({**perms, **update})
        assert gain >= 0
        assert after - before == pytest.approx(gain, rel=1e-9, abs=1e-9)


def all_orders(shape):
    *above, n = shape
    rows = itertools.product(list(all_permutations(n)), repeat=math.prod(above))
    return [torch.stack(drawn).reshape(shape) for drawn in rows]


@pytest.mark.parametrize("name", ["group norm", "attention by einsum"])
def test_a_step_on_a_group_finds_the_best_of_all_its_orders_and_all_inside(name):
    problem = problem_of(name)
    similarity, spec = similarity_of(problem), problem.spec
    perms = moving_permutations(spec.shapes, 3)
    (group,) = {parent for parents in spec.within.values() for parent in parents}
    gain, _ = step(spec, group, perms, weight_terms(similarity, group, perms))
    best = -math.inf
    family = [group, *spec.nested_in(group)]
    for drawn in itertools.product(*(all_orders(spec.shapes[g]) for g in family)):
        chosen = {**perms, **dict(zip(family, drawn, strict=True))}
        best = max(best, similarity.objective(chosen))
    assert similarity.objective(perms) + gain == pytest.approx(best, rel=1e-9)


@every_nested
def test_descent_ends_where_no_order_inside_one_parent_can_gain(name):
    problem = problem_of(name)
    similarity, spec = similarity_of(problem), problem.spec
    found = descend(
        similarity, identity_permutations(spec), torch.Generator().manual_seed(0), max_sweeps=100
    )
    reached = similarity.objective(found.permutations)
    assert found.converged
    for group in spec.within:
        *above, n = spec.shapes[group]
        for row in itertools.product(*map(range, above)):
            for perm in all_permutations(n):
                other = found.permutations[group].clone()
                other[row] = perm
                moved = similarity.objective({**found.permutations, group: other})
                assert moved <= reached + 1e-9 * abs(reached)


def slow_value(a, b, orders):
    """What pairs of units are worth, position by position."""
    rows, n, m, k, _ = a.shape
    total = torch.zeros(rows, n, n, dtype=a.dtype)
    for r, i, j, u, v in itertools.product(*map(range, (rows, n, n, m, k))):
        partner = b[r, j, orders["u"][r, i, j, u], orders["v"][r, i, j, v]]
        total[r, i, j] += a[r, i, u, v] @ partner
    return total


def test_both_kinds_of_terms_say_what_pairs_are_worth_under_orders_of_two_children():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 2, 3, 2, 4, 5, dtype=torch.float64, generator=generator)
    orders = {
        child: torch.rand(2, 3, 3, m, generator=generator).argsort(-1)
        for child, m in (("u", 2), ("v", 4))
    }
    expected = slow_value(a, b, orders)
    joint = torch.einsum("riuvk,rjxyk->rijuxvy", a, b)
    for term in Slices(("u", "v"), a, b), Products(("u", "v"), joint):
        torch.testing.assert_close(term.value(orders), expected)
        for k, child in enumerate(("u", "v")):
            units = term.units(k, {c: o for c, o in orders.items() if c != child})
            paired = units.gather(-1, orders[child][..., None]).sum((-1, -2))
            torch.testing.assert_close(paired, expected)
        plain = {child: torch.arange(order.shape[-1]).expand_as(order)
                 for child, order in orders.items()}  # fmt: skip
        torch.testing.assert_close(term.value({}), slow_value(a, b, plain))


def test_what_is_inside_is_never_worth_less_than_as_it_stands():
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, 1, 4, 3, 3, 2, dtype=torch.float64, generator=generator)
    inside = look_inside([Slices(("u", "v"), a, b), Slices(("u",), a[..., 0, :], b[..., 0, :])])
    assert (inside.best >= inside.start).all()
    assert (inside.best > inside.start).any()


def test_units_of_a_nested_group_are_shown_side_by_side_for_all_its_parents():
    problem = problem_of("attention by einsum", b=1)
    spec = problem.spec
    planted = moving_permutations(spec.shapes, 2)
    problem = MatchProblem(
        problem.model, spec, problem.params_a, permute(spec, planted, problem.params_a)
    )
    undone = invert_permutations(spec, planted)
    heads, units, values = describe_units(problem, undone)
    assert (heads.permutation.size, heads.parents, heads.run) == (2, (), 2)
    assert heads.matched == pytest.approx([1.0] * 2)
    for found in units, values:
        assert (found.permutation.size, found.parents, found.run) == (6, (2,), 3)
        assert found.matched == pytest.approx([1.0] * 6)
        assert (found.before.diagonal() == 127).sum() == found.fixed_points
        flat = flat_permutation(spec, undone, found.group)
        assert found.permutation.tolist() == flat.tolist()
        # Units of one head of A are those of one head of B.
        owners = found.permutation.reshape(2, 3) // 3
        assert (owners == owners[:, :1]).all()


def test_heads_in_a_fixed_order_still_have_orders_of_their_own_inside():
    def attend(m, x):
        q, k, v = (part(x).unflatten(-1, (2, 3)).transpose(1, 2) for part in (m.q, m.k, m.v))
        y = F.scaled_dot_product_attention(q, k, v) * torch.tensor([1.0, 2.0])[:, None, None]
        return m.out(y.transpose(1, 2).flatten(2)).mean(1)

    torch.manual_seed(0)
    parts = {name: nn.Linear(4, 6) for name in ("q", "k", "v")}
    model = Net(attend, **parts, out=nn.Linear(6, 2)).eval()
    x = torch.randn(9, 5, 4)
    spec = find_symmetry(model, (x,))
    assert sorted(spec.shapes.values()) == [(2, 3), (2, 3)]
    a = random_state(model, 1)
    planted = moving_permutations(spec.shapes, 0)
    b, undone = permute(spec, planted, a), invert_permutations(spec, planted)
    batches = [(x, torch.zeros(9, dtype=torch.int64))]
    for method in "weight", "activation":
        found = match(method, model, a, b, spec=spec, batches=batches)
        assert all(torch.equal(found.permutations[g], undone[g]) for g in undone)
    assert all(u.fixed_parents == 2 and u.parents == () for u in
               describe_units(MatchProblem(model, spec, a, b), undone))  # fmt: skip
