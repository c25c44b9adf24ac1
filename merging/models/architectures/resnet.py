"""Residual networks with BatchNorm, or with LayerNorm over channels as in Git Re-Basin."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from merging.models.architectures.convolutional import ChannelLayerNorm
from merging.models.architectures.mlp import Shapes
from merging.schema.running_statistics import is_running_statistic

Norm = Literal["batch", "layer"]


def _norm(kind: Norm, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if kind == "batch" else ChannelLayerNorm(channels)


def _conv(n_in: int, n_out: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut, which has weights where the channels change."""

    def __init__(self, n_in: int, n_out: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1, self.norm1 = _conv(n_in, n_out, stride), _norm(norm, n_out)
        self.conv2, self.norm2 = _conv(n_out, n_out, 1), _norm(norm, n_out)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and n_in == n_out
            else nn.Sequential(_conv(n_in, n_out, stride), _norm(norm, n_out))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add the two branches and apply ReLU."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """A stem and three stages of residual blocks, 1, 2 and 4 times `width` channels."""

    def __init__(
        self, width: int, blocks: int, classes: int, norm: Norm, stem_stride: int = 1
    ) -> None:
        super().__init__()
        self.stem, self.stem_norm = _conv(1, width, stem_stride), _norm(norm, width)
        layers, n_in = [], width
        for stage in range(3):
            for k in range(blocks):
                n_out, stride = width * 2**stage, 2 if stage > 0 and k == 0 else 1
                layers.append(ResidualBlock(n_in, n_out, stride, norm))
                n_in = n_out
        self.blocks = nn.ModuleList(layers)
        self.head = nn.Linear(n_in, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images `[n, 1, side, side]` to logits `[n, classes]`."""
        x = F.relu(self.stem_norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(x.mean(dim=(2, 3)))
        return logits


def infer_resnet(shapes: Shapes) -> dict[str, object] | None:
    """Read the sizes off the shapes of a state dict, or None if it is not such a ResNet.

    The stride of the stem leaves no trace in the shapes; 2 is what the bundled ones have.
    """
    if not {"stem.weight", "stem_norm.weight", "head.weight"} <= set(shapes):
        return None
    indices = {int(name.split(".")[1]) for name in shapes if name.startswith("blocks.")}
    norm: Norm = "batch" if any(map(is_running_statistic, shapes)) else "layer"
    return {
        "width": shapes["stem.weight"][0],
        "blocks": len(indices) // 3,
        "classes": shapes["head.weight"][0],
        "norm": norm,
        "stem_stride": 2,
    }
