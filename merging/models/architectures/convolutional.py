"""Small convolutional networks: plain, VGG with LayerNorm over channels, and one for sequences."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from merging.models.architectures.mlp import Shapes


class ChannelLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of `[n, channels, height, width]`, at every pixel."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise every pixel over its channels."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class CNN(nn.Module):
    """Two 3 x 3 convolutions with pooling, then flatten and two linear layers; no norm."""

    def __init__(self, channels: Sequence[int], hidden: int, classes: int, side: int = 28) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels[0], 3, padding=1)
        self.conv2 = nn.Conv2d(channels[0], channels[1], 3, padding=1)
        self.fc1 = nn.Linear(channels[1] * (side // 4) ** 2, hidden)
        self.fc2 = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images `[n, 1, side, side]` to logits `[n, classes]`."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        logits: Tensor = self.fc2(F.relu(self.fc1(x.flatten(1))))
        return logits


class VGG(nn.Module):
    """Three pairs of 3 x 3 convolutions, LayerNorm over channels after each, then two linears."""

    def __init__(self, width: int, hidden: int, classes: int) -> None:
        super().__init__()
        channels = [1, width, width, 2 * width, 2 * width, 4 * width, 4 * width]
        pairs = list(pairwise(channels))
        self.convs = nn.ModuleList(nn.Conv2d(n_in, n_out, 3, padding=1) for n_in, n_out in pairs)
        self.norms = nn.ModuleList(ChannelLayerNorm(n_out) for _, n_out in pairs)
        self.fc1 = nn.Linear(4 * width, hidden)
        self.fc2 = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images `[n, 1, side, side]` to logits `[n, classes]`."""
        for k, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = F.relu(norm(conv(x)))
            if k % 2 == 1:
                x = F.max_pool2d(x, 2)
        logits: Tensor = self.fc2(F.relu(self.fc1(x.mean(dim=(2, 3)))))
        return logits


class SequenceCNN(nn.Module):
    """Three strided 1-D convolutions, then flatten and one linear layer."""

    def __init__(self, channels: int, classes: int, length: int = 40) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(1, channels, 5, stride=2, padding=2)
        self.conv2 = nn.Conv1d(channels, channels, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(channels, channels, 3, stride=2, padding=1)
        self.head = nn.Linear(channels * (length // 8), classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map sequences `[n, 1, length]` to logits `[n, classes]`."""
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        x = F.relu(self.conv3(x))
        logits: Tensor = self.head(x.flatten(1))
        return logits


def infer_cnn(shapes: Shapes) -> dict[str, object] | None:
    """Read the sizes off the shapes of a state dict, or None if it is not such a CNN."""
    names = {f"{layer}.{p}" for layer in ("conv1", "conv2", "fc1", "fc2") for p in PARTS}
    if set(shapes) != names or len(shapes["conv1.weight"]) != 4:
        return None
    first, second = shapes["conv1.weight"][0], shapes["conv2.weight"][0]
    pixels = shapes["fc1.weight"][1] // second
    side = 4 * round(pixels**0.5)
    hidden, classes = shapes["fc1.weight"][0], shapes["fc2.weight"][0]
    return {"channels": [first, second], "hidden": hidden, "classes": classes, "side": side}


def infer_vgg(shapes: Shapes) -> dict[str, object] | None:
    """Read the sizes off the shapes of a state dict, or None if it is not such a VGG."""
    names = {f"{part}.{k}.{p}" for part in ("convs", "norms") for k in range(6) for p in PARTS}
    names |= {f"{layer}.{p}" for layer in ("fc1", "fc2") for p in PARTS}
    if set(shapes) != names:
        return None
    hidden, classes = shapes["fc1.weight"][0], shapes["fc2.weight"][0]
    return {"width": shapes["convs.0.weight"][0], "hidden": hidden, "classes": classes}


def infer_sequence_cnn(shapes: Shapes) -> dict[str, object] | None:
    """Read the sizes off the shapes of a state dict, or None if it is not such a network."""
    names = {f"{layer}.{p}" for layer in ("conv1", "conv2", "conv3", "head") for p in PARTS}
    if set(shapes) != names or len(shapes["conv1.weight"]) != 3:
        return None
    channels, (classes, flat) = shapes["conv3.weight"][0], shapes["head.weight"]
    return {"channels": channels, "classes": classes, "length": 8 * (flat // channels)}


PARTS = ("weight", "bias")
