"""Networks that nobody wrote: layers strung together at random."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from merging.symmetry import certify, find_symmetry
from merging.symmetry.permutation import (
    identity_permutations,
    invert_permutations,
    permute,
    random_permutations,
)
from merging.symmetry.spec import PermutationSpec
from tests.cases import few, random_state
from tests.oracles import (
    in_float64,
    moving_permutations,
    outputs,
    permuted,
    relative_difference,
)


class Residual(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


class Beside(nn.Module):
    def __init__(self, inner, dim):
        super().__init__()
        self.inner, self.dim = inner, dim

    def forward(self, x):
        return torch.cat([x, self.inner(x)], self.dim)


class Gate(nn.Module):
    def __init__(self, inner, dim):
        super().__init__()
        self.inner, self.dim = inner, dim

    def forward(self, x):
        value, gate = self.inner(x).chunk(2, dim=self.dim)
        return value * torch.sigmoid(gate)


class Attention(nn.Module):
    def __init__(self, n, heads, *, fused):
        super().__init__()
        self.heads, self.fused = heads, fused
        self.qkv = nn.Linear(n, 3 * 2 * heads)
        self.out = nn.Linear(2 * heads, n)

    def forward(self, x):
        if self.fused:
            q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, 2)).unbind(2)
        else:
            q, k, v = (t.unflatten(-1, (self.heads, 2)) for t in self.qkv(x).chunk(3, -1))
        y = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)))
        return self.out(y.transpose(1, 2).flatten(2))


class Squeeze(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.inner, self.outer = nn.Conv2d(n, 3, 1), nn.Conv2d(3, n, 1)

    def forward(self, x):
        y = F.hardswish(self.inner(F.adaptive_avg_pool2d(x, 1)))
        return x * F.hardsigmoid(self.outer(y))


class Skip(nn.Module):
    """Down and up again, beside what was there."""

    def __init__(self, n, up):
        super().__init__()
        self.down, self.up = nn.Conv2d(n, 2, 3, 2, 1), up

    def forward(self, x):
        return torch.cat([x, F.silu(self.up(self.down(x)))], 1)


class Apply(nn.Module):
    """A function as a layer."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Sequence(nn.Module):
    """A recurrent layer of PyTorch, whose outputs go on."""

    def __init__(self, kind, n, units, **options):
        super().__init__()
        self.cells = kind(n, units, batch_first=True, **options)

    def forward(self, x):
        return self.cells(x)[0]


class Mixing(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.there, self.back = nn.Linear(9, hidden), nn.Linear(hidden, 9)

    def forward(self, x):
        return x + self.back(F.gelu(self.there(x.transpose(1, 2)))).transpose(1, 2)


def _resampled(k):
    modes = ("nearest", "bilinear", "bicubic", "nearest-exact")
    options = {"align_corners": False} if modes[k].startswith("bi") else {}
    return Apply(lambda x: F.interpolate(x, size=(3, 3), mode=modes[k], **options))


def _pooled(k):
    pools = (
        lambda x: F.max_pool2d(x, 3, 1, 1),
        lambda x: (
            F.avg_pool2d(x, 2, 2, ceil_mode=True).repeat_interleave(3, 2)[:, :, :3, :1]
            + torch.zeros(3)
        ),
        lambda x: F.adaptive_max_pool2d(x, 3),
        lambda x: F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 1),
    )
    return Apply(pools[k])


def _rearranged(c, k):
    if k == 0:
        return Apply(lambda x: F.channel_shuffle(x, 2) if c % 2 == 0 else x), c
    if k == 1:
        return nn.Sequential(nn.PixelUnshuffle(3), nn.PixelShuffle(3)), c
    if k == 2:
        return Apply(lambda x: x.movedim(1, -1).sort(2).values.movedim(-1, 1)), c
    return Apply(lambda x: x.repeat_interleave(2, dim=1)), 2 * c


def _normed(c, k):
    wrap = torch.nn.utils.parametrizations.weight_norm
    return wrap(nn.Conv2d(c, 2 + k, 1)), 2 + k


# Every step takes channels and a number of its own, and gives a layer and its channels.
MAPS = {
    "conv": lambda c, k: (nn.Conv2d(c, 2 + k, 3, padding=1), 2 + k),
    "norm": lambda c, k: (nn.BatchNorm2d(c) if k % 2 else nn.GroupNorm(1, c), c),
    "group norm": lambda c, k: (nn.GroupNorm(2 if c % 2 == 0 else 1, c), c),
    "relu": lambda c, k: (nn.ReLU() if k % 2 else nn.GELU(), c),
    "slopes": lambda c, k: (nn.PReLU(c), c),
    "depthwise": lambda c, k: (nn.Conv2d(c, c, 3, padding=1, groups=c), c),
    "grouped": lambda c, k: (nn.Conv2d(c, 4, 1, groups=2 if c % 2 == 0 else 1), 4),
    "residual": lambda c, k: (Residual(nn.Sequential(nn.Conv2d(c, c, 1), nn.ReLU())), c),
    "beside": lambda c, k: (Beside(nn.Conv2d(c, 2, 3, padding=1), 1), c + 2),
    "gate": lambda c, k: (Gate(nn.Conv2d(c, 2 * (2 + k), 1), 1), 2 + k),
    "glu": lambda c, k: (nn.Sequential(nn.Conv2d(c, 2 * (2 + k), 1), nn.GLU(1)), 2 + k),
    "squeeze": lambda c, k: (Squeeze(c), c),
    "transposed": lambda c, k: (nn.ConvTranspose2d(c, 2 + k, 3, padding=1), 2 + k),
    "depthwise transposed": lambda c, k: (nn.ConvTranspose2d(c, c, 3, padding=1, groups=c), c),
    "skip": lambda c, k: (
        Skip(c, nn.ConvTranspose2d(2, 3, 3, 2, 1) if k % 2 else nn.Upsample(size=3)),
        c + (3 if k % 2 else 2),
    ),
    "resampled": lambda c, k: (_resampled(k), c),
    "pooled": lambda c, k: (_pooled(k), c),
    "rearranged": _rearranged,
    "normed weights": _normed,
}
TOKENS = {
    "linear": lambda c, k: (nn.Linear(c, 2 + k), 2 + k),
    "norm": lambda c, k: (nn.LayerNorm(c) if k % 2 else nn.RMSNorm(c), c),
    "gelu": lambda c, k: (nn.GELU(), c),
    "residual": lambda c, k: (
        Residual(nn.Sequential(nn.LayerNorm(c), nn.Linear(c, 3), nn.ReLU(), nn.Linear(3, c))), c
    ),
    "attention": lambda c, k: (Residual(Attention(c, 2, fused=bool(k % 2))), c),
    "beside": lambda c, k: (Beside(nn.Linear(c, 2), -1), c + 2),
    "gate": lambda c, k: (Gate(nn.Linear(c, 2 * (2 + k)), -1), 2 + k),
    "lstm": lambda c, k: (Sequence(nn.LSTM, c, 2 + k), 2 + k),
    "gru": lambda c, k: (Sequence(nn.GRU, c, 2, num_layers=1 + k % 2, bidirectional=True), 4),
    "mixing": lambda c, k: (Mixing(2 + k), c),
}  # fmt: skip


def steps(table):
    return st.lists(st.tuples(st.sampled_from(sorted(table)), st.integers(0, 3)), max_size=5)


class Tokens(nn.Module):
    def forward(self, x):
        return x.flatten(2).transpose(1, 2)


@st.composite
def networks(draw):
    """A network from images `[n, 1, 3, 3]`: steps on maps, steps on tokens, a head."""
    seed = draw(st.integers(0, 99))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers, channels = [], 1
        for name, k in [("conv", 2), *draw(steps(MAPS))]:
            layer, channels = MAPS[name](channels, k)
            layers.append(layer)
        layers.append(nn.ReLU())
        if draw(st.booleans()):
            layers.append(Tokens())
            for name, k in draw(steps(TOKENS)):
                layer, channels = TOKENS[name](channels, k)
                layers.append(layer)
        layers += [nn.Flatten(), nn.Linear(channels * 9, 2)]
        return nn.Sequential(*layers).eval(), seed


@few
@given(networks())
def test_any_network_is_certified_and_keeps_its_function(drawn):
    model, seed = drawn
    x = torch.randn(3, 1, 3, 3, generator=torch.Generator().manual_seed(seed))
    spec = find_symmetry(model, (x,))
    assert spec.sizes
    assert spec.report.unknown_operators == ()
    assert not [f for f in spec.report.frozen if "permuting it" in f.reason]
    assert certify(model, spec, (x,), seed=seed).ok

    orders = [math.prod(above) * math.lgamma(n + 1) for *above, n in spec.shapes.values()]
    assert spec.log10_orderings == pytest.approx(sum(orders) / math.log(10))

    params = in_float64(random_state(model, seed))
    perms = moving_permutations(spec.shapes, seed)
    moved = permute(spec, perms, params)
    wide = model.double()
    before = outputs(wide, params, x.double())
    assert relative_difference(before, outputs(wide, moved, x.double())) < 1e-9

    back = permute(spec, invert_permutations(spec, perms), moved)
    assert all(torch.equal(back[name], params[name]) for name in params)


@few
@given(networks())
def test_permuting_any_network_is_permuting_its_entries_one_by_one(drawn):
    model, seed = drawn
    spec = find_symmetry(model, (torch.randn(3, 1, 3, 3),))
    params = random_state(model, seed)
    perms = random_permutations(spec, torch.Generator().manual_seed(seed))
    moved, expected = permute(spec, perms, params), permuted(spec, perms, params)
    assert moved.keys() == expected.keys()
    assert all(torch.equal(moved[name], expected[name]) for name in moved)
    same = permute(spec, identity_permutations(spec), params)
    assert all(torch.equal(same[name], params[name]) for name in params)
    again = PermutationSpec.from_json(spec.to_json(), params)
    assert again.axes == dict(spec.axes)
