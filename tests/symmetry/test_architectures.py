"""Common convolutional and recurrent architectures: their groups, and why the rest is fixed."""

import re
from functools import cache

import pytest
import torch

from merging.symmetry import certify, find_symmetry
from merging.symmetry.permutation import permute
from tests.cases import random_state
from tests.oracles import moving_permutations, relative_difference
from tests.symmetry.networks import CATALOG

# Sizes of the groups of the small networks by hand, ascending: one per stream (a stage of a
# residual network, a stage of depthwise convolutions with what gates them) and one per inner layer.
SIZES = {
    "VGG-11": (4, 8, 16, 16, 32, 32, 32, 32, 256, 256),
    "VGG-11 with BatchNorm": (4, 8, 16, 16, 32, 32, 32, 32, 256, 256),
    "VGG-16": (4, 4, 8, 8, 16, 16, 16, 32, 32, 32, 32, 32, 32, 256, 256),
    "VGG-16 with BatchNorm": (4, 4, 8, 8, 16, 16, 16, 32, 32, 32, 32, 32, 32, 256, 256),
    # Streams of 8 and 16; one inner layer per block.
    "ResNet-18": (8, 8, 16, 16, 16),
    # Streams of 8 (stem), 32 and 64; two inner layers in each of three blocks.
    "ResNet-50": (8, 8, 8, 16, 16, 16, 16, 32, 64),
    "Wide ResNet-50-2": (8, 16, 16, 32, 32, 32, 32, 32, 64),
    "Wide ResNet-28-10": (16, 16, 32, 32, 64, 64),
    # In each block: the order of four groups, of the inputs within them, and of the outputs.
    "ResNeXt-50 32x4d": (4, *(4, 4), 4, *(8, 8), 4, *(8, 8), 8, 32, 64),
    # Stem, two inner layers per dense layer, the transition; nothing is joined but side by side.
    "DenseNet-121": (4, 4, 4, 4, 4, 6, 7, 16, 16, 16, 16, 16),
    # The stem is the first depthwise stage; then one expanded stage per block.
    "MobileNetV2": (8, 8, 8, 48, 48, 48, 48, 48, 320),
    "MobileNetV3-Small": (16, 16, 24, 40, 64, 64, 72, 96, 144, 240, 240, 576, 576),
    "MobileNetV3-Large": (16, 16, 24, 32, 32, 40, 64, 112, 120, 120, 120, 480, 672),
    "EfficientNet-B0": (2, 2, 8, 8, 8, 24, 32, 48, 48),
    "ConvNeXt-T": (6, 8, 24, 32, 32),
    # A skip is a group of its own, beside the channels that come up.
    "U-Net": (4, 4, 4, 4, 4, 8, 8, 8, 8, 8, 16, 16),
    "U-Net with bilinear upsampling": (4, 4, 4, 4, 4, 8, 8, 8, 8, 8, 16, 16),
    "Autoencoder": (3, 6, 6, 8, 8),
    "Convolutional autoencoder": (4, 4, 5, 6, 6),
    "MLP-Mixer-B/16": (6, 6, 8, 10, 10),
    # Embedding, and one group per layer and direction.
    "RNN": (4, 5),
    "LSTM, two layers": (4, 5, 5),
    "LSTM with projection": (4, 4, 4, 5, 5),
    "LSTM, bidirectional": (4, 4, 4, 4),
    # Encoder and decoder share the units of a layer, and all tokens one embedding.
    "LSTM encoder-decoder": (4, 4, 4),
    "LSTM cell": (5,),
    "LSTM written out": (5,),
    "GRU, two layers": (4, 5, 5),
    "GRU, bidirectional": (4, 4, 4, 4),
    "GRU encoder-decoder": (4, 4, 4),
    "GRU cell": (5,),
    "GRU written out": (5,),
}
# What has to keep its order, and nothing else has.
REASONS = (
    r"axis of the (in|out)put|kernel position at .*|spatial position at .*"
    r"|order of the gates at .*|rows are looked up at embedding .*"
)

every = pytest.mark.parametrize("name", SIZES)


@cache
def built(name):
    return CATALOG[name](small=True)


@cache
def found(name):
    return find_symmetry(*built(name))


def run(model, params, inputs):
    with torch.no_grad():
        return torch.func.functional_call(model, params, inputs, tie_weights=False)


@every
def test_all_groups_are_found(name):
    assert tuple(sorted(found(name).sizes.values())) == tuple(sorted(SIZES[name]))


@every
def test_only_what_must_keep_its_order_is_fixed(name):
    report = found(name).report
    assert report.unknown_operators == ()
    assert {f.reason for f in report.frozen if not re.fullmatch(REASONS, f.reason)} == set()


@every
def test_it_is_certified(name):
    certificate = certify(built(name)[0], found(name), built(name)[1], seed=1)
    assert certificate.ok
    assert certificate.tolerance == 1e-9
    # What stays: biases of the outputs (and of a Mixer's positions), and BatchNorm's counters.
    staying = {"num_batches_tracked", *(["tokens.2.bias"] if "Mixer" in name else [])}
    state, last = built(name)[0].state_dict(), outputs_of(name)
    stays = sum(v.numel() for key, v in state.items() if any(key.endswith(s) for s in staying))
    total = sum(value.numel() for value in state.values())
    assert certificate.share_moved >= 1 - (stays + last) / total


def outputs_of(name):
    model, inputs = built(name)
    shape = run(model, dict(model.state_dict()), inputs).shape
    return shape[1 if len(shape) == 4 else -1]


@every
def test_each_group_by_itself_keeps_the_function_of_the_module(name):
    model, inputs = CATALOG[name](small=True)
    model = model.double()
    params = random_state(model, 1)
    inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    before = run(model, params, inputs)
    assert before.std() > 0
    perms = moving_permutations(found(name).shapes, 3)
    for group in perms:
        moved = permute(found(name), {group: perms[group]}, params)
        assert relative_difference(before, run(model, moved, inputs)) < 1e-9, group


def test_the_table_holds_every_network_here():
    assert set(SIZES) <= set(CATALOG)
