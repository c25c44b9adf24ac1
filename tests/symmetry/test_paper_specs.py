"""The specs of Ainsworth et al. (2023), written by hand, are what is derived."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from merging.models.architectures.convolutional import ChannelLayerNorm
from merging.models.architectures.registry import build_model
from merging.symmetry import certify, find_symmetry
from merging.symmetry.spec import PermutationSpec
from tests.oracles import partition


class VGG16(nn.Module):
    """VGG-16 as in the paper: LayerNorm over channels after every convolution, three linears."""

    plan = (1, 1, "pool", 2, 2, "pool", 4, 4, 4, "pool", 8, 8, 8, "pool", 8, 8, 8, "pool")

    def __init__(self, width=2, classes=3):
        super().__init__()
        self.convs, self.norms, n_in = nn.ModuleList(), nn.ModuleList(), 3
        for factor in self.plan:
            if factor != "pool":
                self.convs.append(nn.Conv2d(n_in, width * factor, 3, padding=1))
                self.norms.append(ChannelLayerNorm(width * factor))
                n_in = width * factor
        self.dense = nn.ModuleList([nn.Linear(n_in, 5), nn.Linear(5, 4), nn.Linear(4, classes)])

    def forward(self, x):
        k = 0
        for factor in self.plan:
            if factor == "pool":
                x = F.max_pool2d(x, 2)
            else:
                x, k = F.relu(self.norms[k](self.convs[k](x))), k + 1
        x = F.relu(self.dense[0](x.flatten(1)))
        return self.dense[2](F.relu(self.dense[1](x)))


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions; where the width changes, a 3 x 3 convolution beside them."""

    def __init__(self, n_in, n_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.norm1 = ChannelLayerNorm(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.norm2 = ChannelLayerNorm(n_out)
        self.shortcut = None
        if stride != 1 or n_in != n_out:
            conv = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
            self.shortcut = nn.Sequential(conv, ChannelLayerNorm(n_out))

    def forward(self, x):
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet20(nn.Module):
    """Three stages of three blocks."""

    def __init__(self, width=2, classes=3):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.norm = ChannelLayerNorm(width)
        blocks, n_in = [], width
        for stage in range(3):
            for k in range(3):
                n_out = width * 2**stage
                blocks.append(BasicBlock(n_in, n_out, 2 if stage and not k else 1))
                n_in = n_out
        self.blocks = nn.ModuleList(blocks)
        self.dense = nn.Linear(n_in, classes)

    def forward(self, x):
        x = F.relu(self.norm(self.conv(x)))
        for block in self.blocks:
            x = block(x)
        return self.dense(x.mean((2, 3)))


def mlp_spec(depth):
    axes = {"layers.0.weight": ["P0", None], "layers.0.bias": ["P0"]}
    for k in range(1, depth):
        axes |= {f"layers.{k}.weight": [f"P{k}", f"P{k - 1}"], f"layers.{k}.bias": [f"P{k}"]}
    return axes | {f"layers.{depth}.weight": [None, f"P{depth - 1}"]}


def vgg_spec():
    axes = {}
    for k in range(13):
        before, own = f"C{k - 1}" if k else None, f"C{k}"
        axes |= {
            f"convs.{k}.weight": [own, before, None, None],
            f"convs.{k}.bias": [own],
            f"norms.{k}.weight": [own],
            f"norms.{k}.bias": [own],
        }
    axes |= {"dense.0.weight": ["D0", "C12"], "dense.0.bias": ["D0"]}
    axes |= {"dense.1.weight": ["D1", "D0"], "dense.1.bias": ["D1"]}
    return axes | {"dense.2.weight": [None, "D1"]}


def _conv_norm(conv, norm, before, after):
    return {
        f"{conv}.weight": [after, before, None, None],
        f"{norm}.weight": [after],
        f"{norm}.bias": [after],
    }


def resnet_spec():
    axes = _conv_norm("conv", "norm", None, "bg0")
    for k in range(9):
        stage, name = k // 3, f"blocks.{k}"
        before = f"bg{stage - 1}" if stage and k % 3 == 0 else f"bg{stage}"
        inner, after = f"inner{k}", f"bg{stage}"
        axes |= _conv_norm(f"{name}.conv1", f"{name}.norm1", before, inner)
        axes |= _conv_norm(f"{name}.conv2", f"{name}.norm2", inner, after)
        if before != after:
            axes |= _conv_norm(f"{name}.shortcut.0", f"{name}.shortcut.1", before, after)
    return axes | {"dense.weight": [None, "bg2"]}


def _written(model, axes):
    return PermutationSpec.from_json(json.dumps(axes), model.state_dict())


def _seeded(build):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build().eval()


CASES = {
    "MLP with three hidden layers": (
        lambda: build_model({"architecture": "mlp", "widths": [6, 5, 4, 5, 3]}),
        mlp_spec(3),
        (6,),
    ),
    "VGG-16 with LayerNorm": (lambda: _seeded(VGG16), vgg_spec(), (3, 32, 32)),
    "ResNet-20 with LayerNorm": (lambda: _seeded(ResNet20), resnet_spec(), (3, 8, 8)),
}


@pytest.mark.parametrize("case", CASES)
def test_derived_groups_are_those_of_the_paper(case):
    build, axes, shape = CASES[case]
    model = build()
    derived = find_symmetry(model, (torch.randn(2, *shape),))
    written = _written(model, axes)
    assert partition(derived) == partition(written)
    assert sorted(derived.sizes.values()) == sorted(written.sizes.values())


@pytest.mark.parametrize("case", CASES)
def test_the_paper_specs_are_certified(case):
    build, axes, shape = CASES[case]
    model = build()
    assert certify(model, _written(model, axes), (torch.randn(2, *shape),)).ok


def test_resnet_20_has_three_streams_and_nine_inner_groups():
    spec = find_symmetry(_seeded(ResNet20), (torch.randn(2, 3, 8, 8),))
    assert len(spec.sizes) == 12
    assert max(len(places) for places in spec.places().values()) == 3 + 3 * 4 + 2


def test_a_three_by_three_shortcut_joins_two_streams_without_mixing_them():
    model = _seeded(lambda: nn.Sequential(nn.Conv2d(1, 3, 3), BasicBlock(3, 4, 2), nn.Flatten()))
    model.append(nn.Linear(4 * 9, 2))
    spec = find_symmetry(model, (torch.randn(2, 1, 8, 8),))
    (stream,) = [g for g, places in spec.places().items() if ("0.weight", 0) in places]
    assert spec.places()[stream] == (
        ("0.weight", 0),
        ("0.bias", 0),
        ("1.conv1.weight", 1),
        ("1.shortcut.0.weight", 1),
    )
    assert spec.sizes == {stream: 3, "1.conv1.weight[0]": 4, "1.conv2.weight[0]": 4}


@pytest.mark.parametrize(
    ("axes", "wrong"),
    [
        ({"layers.1.weight": ["P1", None]}, "the input side of layer 1 is left out"),
        ({"layers.0.bias": [None]}, "a bias is left out"),
        ({"layers.1.weight": ["P1", "P1"]}, "two layers share one permutation"),
        ({"layers.3.weight": ["P2", "P2"]}, "the classes are permuted"),
    ],
)
def test_a_mistake_in_a_hand_written_spec_fails_its_certificate(axes, wrong):
    model = build_model({"architecture": "mlp", "widths": [6, 5, 5, 5, 5]})
    spec = _written(model, mlp_spec(3) | axes)
    for seed in range(5):
        certificate = certify(model, spec, (torch.randn(8, 6),), seed=seed)
        assert not certificate.ok, wrong
        assert certificate.max_relative_difference > 1e-6


def test_permuting_batch_norm_without_its_running_statistics_fails():
    model = _seeded(lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)))
    right = {
        "0.weight": ["P", None], "0.bias": ["P"], "1.weight": ["P"], "1.bias": ["P"],
        "1.running_mean": ["P"], "1.running_var": ["P"], "2.weight": [None, "P"],
    }  # fmt: skip
    x = (torch.randn(8, 4),)
    assert certify(model, _written(model, right), x).ok
    for buffer in ("1.running_mean", "1.running_var"):
        assert not certify(model, _written(model, right | {buffer: [None]}), x).ok


def test_flattening_without_blocks_fails_and_with_blocks_is_right():
    model = _seeded(lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(12, 2)))
    x = (torch.randn(8, 1, 4, 4),)
    convolution = {"0.weight": ["P", None, None, None], "0.bias": ["P"]}
    for factors, ok in ([["P", 3], [None, 4]], True), ([[None, 4], ["P", 3]], False):
        axes = convolution | {"2.weight": [None, {"product": factors}]}
        assert certify(model, _written(model, axes), x).ok is ok


def test_group_norm_with_free_channels_fails():
    model = _seeded(lambda: nn.Sequential(nn.Linear(4, 6), nn.GroupNorm(2, 6), nn.Linear(6, 2)))
    names = ("0.bias", "1.weight", "1.bias")
    free = {"0.weight": ["P", None], "2.weight": [None, "P"], **{n: ["P"] for n in names}}
    assert not certify(model, _written(model, free), (torch.randn(8, 4),)).ok
