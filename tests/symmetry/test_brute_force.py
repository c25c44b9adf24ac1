"""Tiny networks, every permutation: nothing in the spec is wrong, and nothing is missing."""

import copy
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from merging.symmetry import find_symmetry
from merging.symmetry.permutation import axis_index, permute
from tests.cases import (
    NETWORKS,
    Net,
    network,
    network_inputs,
    network_symmetry,
    random_state,
    trace_aliases,
    weight,
)
from tests.oracles import all_permutations, outputs

linear = nn.Linear


def bare(n_in, n_out):
    return nn.Linear(n_in, n_out, bias=False)


def _attend(m, x):
    q, k, v = (part(x)[:, None] for part in (m.q, m.k, m.v))
    return m.out(F.scaled_dot_product_attention(q, k, v)[:, 0]).flatten(1)


def _attend_fused(m, x):
    q, k, v = m.qkv(x).unflatten(-1, (3, 1, 2)).permute(2, 0, 3, 1, 4).unbind(0)
    return m.out(F.scaled_dot_product_attention(q, k, v)[:, 0]).flatten(1)


def _attend_twice(m, x):
    q, k, v = (part(x).unflatten(-1, (2, 1)).transpose(1, 2) for part in (m.q, m.k, m.v))
    return m.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)).flatten(1)


def _gate(m, x):
    value, gate = m.both(x).chunk(2, dim=-1)
    return m.head(value * torch.sigmoid(gate))


def _again(m, x):
    hidden = torch.tanh(m.inward(x[:, :1]))
    return m.head(torch.tanh(m.inward(x[:, 1:]) + m.again(hidden)))


def _build_tied():
    net = Net(
        lambda m, x: m.unembed(torch.tanh(m.fc(m.embed(x).mean(1)))),
        embed=nn.Embedding(3, 2), fc=linear(2, 2), unembed=bare(2, 3),
    )  # fmt: skip
    net.unembed.weight = net.embed.weight
    return net


def drawn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _squeeze(m, x):
    y = torch.tanh(m.depthwise(torch.tanh(m.conv(x))))
    return m.head((y * torch.sigmoid(m.gate(y.mean(2, keepdim=True)))).flatten(1))


def _skip(m, x):
    down = torch.tanh(m.down(x))
    up = m.up(F.max_pool1d(down, 2))
    return m.head(torch.cat([down, torch.tanh(up)], 1))


def _mix(m, x):
    x = m.stem(x).transpose(1, 2)
    x = x + m.back(torch.tanh(m.tokens(m.norm(x).transpose(1, 2)))).transpose(1, 2)
    return m.head(torch.tanh(x).mean(1))


def cells(kind, n, layers=1, **options):
    return lambda: Net(
        lambda m, x: m.cells(x)[0].mean((1, 2)),
        cells=kind(1, n, layers, batch_first=True, **options),
    )


TINY = {
    "one hidden layer": (
        lambda: nn.Sequential(linear(2, 3), nn.Tanh(), linear(3, 2)),
        drawn(5, 2),
    ),
    "two hidden layers": (
        lambda: nn.Sequential(linear(1, 2), nn.Tanh(), linear(2, 3), nn.Tanh(), linear(3, 1)),
        drawn(5, 1),
    ),
    "convolution then flatten": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, (1, 2)), nn.Tanh(), nn.Flatten(), linear(4, 2)),
        drawn(5, 1, 1, 3),
    ),
    "depthwise convolution": (
        lambda: nn.Sequential(
            nn.Conv1d(1, 2, 1), nn.Tanh(), nn.Conv1d(2, 2, 2, groups=2), nn.Flatten(), linear(2, 1)
        ),
        drawn(5, 1, 2),
    ),
    "batch norm": (
        lambda: nn.Sequential(linear(1, 2), nn.BatchNorm1d(2), nn.Tanh(), linear(2, 1)),
        drawn(5, 1),
    ),
    "layer norm": (
        lambda: nn.Sequential(bare(2, 3), nn.LayerNorm(3), nn.Tanh(), bare(3, 1)),
        drawn(5, 2),
    ),
    "concatenation": (
        lambda: Net(
            lambda m, x: m.head(torch.cat([torch.tanh(m.left(x)), torch.tanh(m.right(x))], 1)),
            left=linear(1, 2),
            right=linear(1, 2),
            head=linear(4, 1),
        ),
        drawn(5, 1),
    ),
    "residual": (
        lambda: Net(
            lambda m, x: m.head(m.stem(x) + torch.tanh(m.mix(m.stem(x)))),
            stem=linear(1, 2),
            mix=linear(2, 2),
            head=linear(2, 2),
        ),
        drawn(5, 1),
    ),
    "gate": (lambda: Net(_gate, both=linear(1, 4), head=bare(2, 1)), drawn(5, 1)),
    "used twice": (
        lambda: Net(_again, inward=linear(1, 2), again=linear(2, 2), head=bare(2, 2)),
        drawn(5, 2),
    ),
    "attention": (
        lambda: Net(_attend, q=bare(2, 2), k=bare(2, 2), v=bare(2, 2), out=bare(2, 1)),
        drawn(5, 3, 2),
    ),
    "fused attention": (
        lambda: Net(_attend_fused, qkv=bare(2, 6), out=bare(2, 1)),
        drawn(5, 3, 2),
    ),
    "two heads": (
        lambda: Net(_attend_twice, q=bare(2, 2), k=bare(2, 2), v=bare(2, 2), out=bare(2, 1)),
        drawn(5, 3, 2),
    ),
    "mean over channels": (
        lambda: Net(lambda m, x: torch.tanh(m.conv(x)).mean(1), conv=nn.Conv1d(1, 3, 2)),
        drawn(5, 1, 4),
    ),
    "outer product": (
        lambda: Net(
            lambda m, x: m.head((m.left(x)[:, :, None] * m.right(x)[:, None, :]).flatten(1)),
            left=linear(1, 2),
            right=bare(1, 2),
            head=bare(4, 1),
        ),
        drawn(5, 1),
    ),
    "squeeze and excitation": (
        lambda: Net(
            _squeeze,
            conv=nn.Conv1d(1, 2, 1, bias=False),
            depthwise=nn.Conv1d(2, 2, 2, groups=2, bias=False),
            gate=nn.Conv1d(2, 2, 1, bias=False),
            head=bare(4, 1),
        ),
        drawn(5, 1, 3),
    ),
    "transposed convolution": (
        lambda: nn.Sequential(
            nn.ConvTranspose1d(1, 2, 2), nn.Tanh(), nn.ConvTranspose1d(2, 2, 2, bias=False)
        ),
        drawn(5, 1, 2),
    ),
    "depthwise transposed convolution": (
        lambda: nn.Sequential(
            nn.Conv1d(1, 2, 1),
            nn.Tanh(),
            nn.ConvTranspose1d(2, 2, 2, groups=2),
            nn.Conv1d(2, 1, 1),
        ),
        drawn(5, 1, 2),
    ),
    "skip beside what comes up": (
        lambda: Net(
            _skip,
            down=nn.Conv1d(1, 2, 1, bias=False),
            up=nn.ConvTranspose1d(2, 2, 2, 2, bias=False),
            head=nn.Conv1d(4, 1, 1),
        ),
        drawn(5, 1, 4),
    ),
    "token mixing": (
        lambda: Net(
            _mix,
            stem=nn.Conv1d(1, 2, 1, bias=False),
            norm=nn.RMSNorm(2),
            tokens=bare(3, 2),
            back=bare(2, 3),
            head=bare(2, 1),
        ),
        drawn(5, 1, 3),
    ),
    "recurrent layer": (cells(nn.RNN, 3), drawn(5, 3, 1)),
    "recurrent layer in both directions": (
        cells(nn.RNN, 2, bidirectional=True, bias=False),
        drawn(5, 3, 1),
    ),
    "two recurrent layers": (cells(nn.RNN, 2, 2, bias=False), drawn(5, 3, 1)),
    "tied embeddings": (
        _build_tied,
        torch.randint(0, 3, (6, 2), generator=torch.Generator().manual_seed(0)),
    ),
    "used by nobody but a mean": (
        lambda: Net(lambda m, x: m.head(x * m.scale.mean()), scale=weight(3), head=linear(2, 1)),
        drawn(5, 2),
    ),
}


def places_of(model):
    """Every axis of every tensor, tied tensors once."""
    aliases = trace_aliases(model)
    return [
        (name, axis)
        for name, value in model.state_dict().items()
        if name not in aliases and value.is_floating_point()
        for axis in range(value.dim())
    ]


def applied(model, params, places, indices):
    moved = dict(params)
    for (name, axis), index in zip(places, indices, strict=True):
        moved[name] = moved[name].index_select(axis, index)
    for alias, name in trace_aliases(model).items():
        moved[alias] = moved[name]
    return moved


def function_keeping(model, params, x, places):
    """All choices of one permutation per axis that leave the outputs alone."""
    before = outputs(model, params, x)
    choices = [list(all_permutations(params[name].shape[axis])) for name, axis in places]
    found = set()
    for indices in itertools.product(*choices):
        after = outputs(model, applied(model, params, places, indices), x)
        if torch.allclose(before, after, rtol=0, atol=1e-10):
            found.add(tuple(tuple(index.tolist()) for index in indices))
    return found


def all_orders(shape):
    """Every permutation of a group, a row for every position of its parents."""
    *above, n = shape
    rows = itertools.product(list(all_permutations(n)), repeat=math.prod(above))
    return (torch.stack(drawn).reshape(shape) for drawn in rows)


def spanned(spec, params, places):
    """All choices of one permutation per axis that the spec allows."""
    shapes = spec.shapes
    found = set()
    for drawn in itertools.product(*(list(all_orders(shape)) for shape in shapes.values())):
        perms = dict(zip(shapes, drawn, strict=True))
        indices = []
        for name, axis in places:
            index = axis_index(spec.axes[name][axis], perms)
            indices.append(range(params[name].shape[axis]) if index is None else index.tolist())
        found.add(tuple(tuple(index) for index in indices))
    return found


def tiny(case):
    build, x = TINY[case]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build().eval()
    spec = find_symmetry(model, (x,))
    model = model.double()
    x = x.double() if x.is_floating_point() else x
    return model, spec, random_state(model, 1), x


@pytest.mark.parametrize("case", TINY)
def test_the_spec_is_all_that_keeps_the_function_and_nothing_else(case):
    model, spec, params, x = tiny(case)
    places = places_of(model)
    assert function_keeping(model, params, x, places) == spanned(spec, params, places)


def test_group_norm_allows_all_that_keeps_groups_together_and_so_does_the_spec():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        build = nn.Sequential(linear(1, 4), nn.GroupNorm(2, 4), nn.Tanh(), linear(4, 1))
    x = torch.randn(5, 1)
    spec = find_symmetry(build.eval(), (x,))
    model = build.double()
    params, x = random_state(model, 1), x.double()
    places = [(n, a) for n, a in places_of(model) if params[n].shape[a] == 4]
    before, kept = outputs(model, params, x), set()
    for perm in all_permutations(4):
        after = outputs(model, applied(model, params, places, [perm] * len(places)), x)
        if torch.allclose(before, after, rtol=0, atol=1e-10):
            kept.add(tuple(perm.tolist()))
    together = {p for p in itertools.permutations(range(4)) if {p[0] // 2, p[1] // 2} != {0, 1}}
    assert kept == together
    allowed = {indices[0] for indices in spanned(spec, params, places)}
    assert len(allowed) == 8
    assert allowed == kept


def test_every_head_has_an_order_of_its_own_and_there_is_nothing_beyond():
    model = Net(_attend_wide, **{n: bare(2, 4) for n in ("q", "k", "v")}, out=bare(4, 1)).eval()
    x = torch.randn(5, 3, 2)
    spec = find_symmetry(model, (x,))
    model = model.double()
    params, x = random_state(model, 1), x.double()
    places = [("q.weight", 0), ("k.weight", 0), ("v.weight", 0), ("out.weight", 1)]
    before, kept = outputs(model, params, x), set()
    for units, values in itertools.product(list(all_permutations(4)), repeat=2):
        chosen = [units, units, values, values]
        after = outputs(model, applied(model, params, places, chosen), x)
        if torch.allclose(before, after, rtol=0, atol=1e-10):
            kept.add(tuple(tuple(index.tolist()) for index in chosen))
    assert kept == spanned(spec, params, places)
    assert len(kept) == 2 * 2**2 * 2**2


def test_every_group_of_a_convolution_has_an_order_of_its_own_and_there_is_nothing_beyond():
    model = nn.Sequential(
        nn.Conv1d(1, 4, 1), nn.Tanh(), nn.Conv1d(4, 4, 1, groups=2), nn.Tanh(), nn.Flatten(),
        linear(4, 1),
    ).eval()  # fmt: skip
    spec = find_symmetry(model, (torch.randn(3, 1, 1),))
    # As a matrix, the grouped weight has blocks; what keeps them can be written as one again.
    blocks = torch.block_diag(torch.ones(2, 2), torch.ones(2, 2))
    orders = list(all_permutations(4))
    kept = {
        (tuple(one.tolist()), tuple(two.tolist()))
        for one, two in itertools.product(orders, repeat=2)
        if torch.equal(blocks[two][:, one], blocks)
    }
    places = [("0.weight", 0), ("2.weight", 0)]
    assert kept == spanned(spec, model.state_dict(), places)
    assert len(kept) == 2 * 2**2 * 2**2


def _attend_wide(m, x):
    q, k, v = (part(x).unflatten(-1, (2, 2)).transpose(1, 2) for part in (m.q, m.k, m.v))
    return m.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)).flatten(1)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_permutation_of_every_small_group_keeps_the_function(name):
    spec = network_symmetry(name).spec
    model = copy.deepcopy(network(name)).double()
    params = random_state(model, 3)
    (x,) = network_inputs(name, 3, seed=3)
    x = x.double() if x.is_floating_point() else x
    before = outputs(model, params, x)
    for group, shape in spec.shapes.items():
        few = math.factorial(shape[-1]) ** math.prod(shape[:-1]) <= 36
        for perm in all_orders(shape) if few else ():
            after = outputs(model, permute(spec, {group: perm}, params), x)
            torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-10)
