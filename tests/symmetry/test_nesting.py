"""Which groups are nested in which, and that each may then have an order of its own."""

import copy
import importlib
import math
from types import MappingProxyType

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from merging.symmetry import certify, find_symmetry
from merging.symmetry.axes import parent_place
from merging.symmetry.permutation import permute
from tests.cases import Net, heads_of, joined, random_state, weight
from tests.oracles import moving_permutations, outputs, permuted, relative_difference

linear = nn.Linear


def _attention(m, x, norm=None):
    q, k, v = (heads_of(part(x), heads) for part, heads in ((m.q, 4), (m.k, m.kv), (m.v, m.kv)))
    if norm is not None:
        q, k = norm(q), norm(k)
    return m.out(joined(F.scaled_dot_product_attention(q, k, v, enable_gqa=True))).mean(1)


def attention(kv, norm=None):
    parts = {"q": linear(5, 12), "k": linear(5, 3 * kv), "v": linear(5, 3 * kv)}
    extra = {} if norm is None else {"norm": norm}
    net = Net(
        lambda m, x: _attention(m, x, m.norm if norm is not None else None),
        **parts, out=linear(12, 2), **extra,
    )  # fmt: skip
    net.kv = kv
    return net


def _softmax_over_units(m, x):
    y = m.inward(x).unflatten(-1, (2, 3))
    return m.out(torch.softmax(y, m.dim).flatten(1))


def softmax_of(dim):
    net = Net(_softmax_over_units, inward=linear(4, 6), out=linear(6, 2))
    net.dim = dim
    return net


def experts():
    """Every position of the input has a hidden layer of its own."""
    return Net(
        lambda m, x: m.out(
            torch.einsum("bsd,sdc->bsc", torch.tanh(torch.einsum("bsc,scd->bsd", x, m.up)), m.down)
        ).mean(1),
        up=weight(3, 4, 5), down=weight(3, 5, 4), out=linear(4, 2),
    )  # fmt: skip


# Shapes of the groups' permutations by hand, and the shape of one example.
CASES = {
    "heads": (lambda: attention(4), (6, 5), [(4,), (4, 3), (4, 3)]),
    # Key heads; queries per key head; units of queries and keys; units of values.
    "grouped queries": (lambda: attention(2), (6, 5), [(2,), (2, 2), (2, 3), (2, 3)]),
    "one key head": (lambda: attention(1), (6, 5), [(3,), (3,), (4,)]),
    # Weights of the norm are those of all heads.
    "normed queries": (lambda: attention(2, nn.RMSNorm(3)), (6, 5), [(2,), (2, 2), (2, 3), (3,)]),
    "queries normed without weights": (
        lambda: attention(2, nn.RMSNorm(3, elementwise_affine=False)),
        (6, 5),
        [(2,), (2, 2), (2, 3), (2, 3)],
    ),
    "softmax inside": (lambda: softmax_of(2), (4,), [(2,), (2, 3)]),
    "softmax across": (lambda: softmax_of(1), (4,), [(3,), (3, 2)]),
    "experts in a fixed order": (experts, (3, 4), [(3, 5), (4,)]),
    "group norm on a residual stream": (
        lambda: Net(
            lambda m, x: m.head((m.norm(m.stem(x)) + F.relu(m.mix(m.norm(m.stem(x))))).mean(2)),
            stem=nn.Conv1d(2, 6, 1), norm=nn.GroupNorm(2, 6), mix=nn.Conv1d(6, 6, 1),
            head=linear(6, 2),
        ),
        (2, 5),
        [(2,), (2, 3)],
    ),
    "grouped convolutions after one another": (
        lambda: nn.Sequential(
            nn.Conv1d(1, 4, 1), nn.Tanh(), nn.Conv1d(4, 6, 2, groups=2), nn.Tanh(),
            nn.Conv1d(6, 4, 2, groups=2), nn.Flatten(), linear(12, 2),
        ),
        (1, 5),
        [(2,), (2, 2), (2, 2), (2, 3)],
    ),
    "shuffled groups": (
        lambda: nn.Sequential(
            nn.Conv1d(1, 6, 1), nn.Tanh(), nn.Conv1d(6, 6, 1, groups=2), nn.ChannelShuffle(2),
            nn.Conv1d(6, 6, 1, groups=3), nn.Flatten(), linear(12, 2),
        ),
        (1, 2),
        [(2,), (2, 3), (3,), (3, 2)],
    ),
}  # fmt: skip


def built(case):
    build, shape, _ = CASES[case]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build().eval()
        return model, torch.randn(4, *shape)


@pytest.mark.parametrize("case", CASES)
def test_what_is_nested_is_what_was_found_by_hand(case):
    model, x = built(case)
    spec = find_symmetry(model, (x,))
    assert sorted(spec.shapes.values()) == sorted(CASES[case][2])
    assert not [f for f in spec.report.frozen if "changes the function" in f.reason]
    orders = [math.prod(above) * math.log10(math.factorial(n)) for *above, n in CASES[case][2]]
    assert spec.log10_orderings == pytest.approx(sum(orders))


@pytest.mark.parametrize("case", CASES)
def test_every_order_inside_every_parent_keeps_the_function(case):
    model, x = built(case)
    spec, wide = find_symmetry(model, (x,)), copy.deepcopy(model).double()
    params, x = random_state(wide, 1), x.double()
    before = outputs(wide, params, x)
    for seed in range(3):
        perms = moving_permutations(spec.shapes, seed)
        moved = permute(spec, perms, params)
        assert relative_difference(before, outputs(wide, moved, x)) < 1e-9
        slow = permuted(spec, perms, params)
        assert all(torch.equal(moved[name], slow[name]) for name in moved)


def test_an_order_for_each_that_changes_the_function_becomes_one_for_all(monkeypatch):
    module = importlib.import_module("merging.symmetry.derive")

    def forgets_what_it_sums(call):
        return call.axes("self")

    rules = MappingProxyType({**module.RULES, "softmax": forgets_what_it_sums})
    monkeypatch.setattr(module, "RULES", rules)
    model, x = built("softmax across")
    spec = find_symmetry(model, (x,))
    assert sorted(spec.shapes.values()) == [(2,), (3,)]
    (reason,) = {f.reason for f in spec.report.frozen if "order for each" in f.reason}
    assert reason.startswith("one order for all: an order for each changes the function at")
    assert "softmax" in reason
    assert certify(model, spec, (x,)).ok


def test_a_parent_is_looked_for_beside_an_index_set_first_and_must_be_there_once():
    cell = [(0, "h"), (0, "d"), (1, "h"), (1, "d"), (2, "e")]
    assert parent_place(cell, 1, "h") == 0
    assert parent_place(cell, 3, "h") == 2
    assert parent_place(cell, 4, "h") is None
    assert parent_place(cell, 4, "x") is None
    assert parent_place(cell[:2] + cell[4:], 2, "h") == 0
