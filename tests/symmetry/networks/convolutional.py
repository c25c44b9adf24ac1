"""Convolutional networks, each after its paper (and torchvision's choices where that is silent).

Every builder takes `small`: the same definition with fewer and narrower layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 1000


def seeded(build: Callable[[], nn.Module], *shape: int) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A network from a fixed seed in evaluation mode, and a batch of two random inputs."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build().eval()
        return model, (torch.randn(2, *shape),)


def conv_norm(n_in: int, n_out: int, size: int = 1, act: type | None = None, **options: int):
    """Convolution without bias, BatchNorm, activation."""
    padding = (size - 1) // 2
    conv = nn.Conv2d(n_in, n_out, size, padding=padding, bias=False, **options)
    return nn.Sequential(conv, nn.BatchNorm2d(n_out), *([act()] if act else []))


# Simonyan and Zisserman 2015: configurations A and D.
VGG_PLANS = {
    11: (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    16: (64, 64, "M", 128, 128, "M", *(256,) * 3, "M", *(512,) * 3, "M", *(512,) * 3, "M"),
}


class VGG(nn.Module):
    def __init__(self, depth: int, *, norm: bool, divisor: int = 1, classes: int = CLASSES):
        super().__init__()
        layers: list[nn.Module] = []
        channels, hidden = 3, 4096 // divisor
        for step in VGG_PLANS[depth]:
            if step == "M":
                layers.append(nn.MaxPool2d(2, 2))
                continue
            width = step // divisor
            layers.append(nn.Conv2d(channels, width, 3, padding=1))
            layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)] if norm else [nn.ReLU(True)]
            channels = width
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        self.classifier = nn.Sequential(
            nn.Linear(channels * 49, hidden), nn.ReLU(True), nn.Dropout(),
            nn.Linear(hidden, hidden), nn.ReLU(True), nn.Dropout(),
            nn.Linear(hidden, classes),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


class BasicBlock(nn.Module):
    """He et al. 2016, Fig. 2."""

    expansion = 1

    def __init__(self, n_in: int, width: int, stride: int, groups: int = 1, inner: int = 0):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        change = stride != 1 or n_in != width
        self.downsample = conv_norm(n_in, width, stride=stride) if change else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (self.downsample(x) if self.downsample else x))


class Bottleneck(nn.Module):
    """He et al. 2016, Fig. 5; wide (Zagoruyko 2016) and grouped (Xie et al. 2017) as well."""

    expansion = 4

    def __init__(self, n_in: int, width: int, stride: int, groups: int = 1, inner: int = 0):
        super().__init__()
        inner, n_out = inner or width, width * self.expansion
        self.conv1 = nn.Conv2d(n_in, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, n_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(n_out)
        self.relu = nn.ReLU(inplace=True)
        change = stride != 1 or n_in != n_out
        self.downsample = conv_norm(n_in, n_out, stride=stride) if change else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(y)))))
        y += self.downsample(x) if self.downsample else x
        return self.relu(y)


class ResNet(nn.Module):
    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        layers: Sequence[int],
        *,
        groups: int = 1,
        base_width: int = 64,
        width: int = 64,
        classes: int = CLASSES,
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        stages, channels = [], width
        for k, n in enumerate(layers):
            own = width * 2**k
            inner = own * base_width // 64 * groups
            blocks = []
            for j in range(n):
                blocks.append(block(channels, own, 2 if k and not j else 1, groups, inner))
                channels = own * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.layers = nn.Sequential(*stages)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        return self.fc(torch.flatten(self.avgpool(self.layers(x)), 1))


class WideBlock(nn.Module):
    """Zagoruyko and Komodakis 2016: activation first, 3 x 3 twice."""

    def __init__(self, n_in: int, n_out: int, stride: int):
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(n_in), nn.BatchNorm2d(n_out)
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(n_in, n_out, 1, stride, bias=False) if n_in != n_out else None

    def forward(self, x: Tensor) -> Tensor:
        first = F.relu(self.bn1(x))
        y = self.conv2(F.dropout(F.relu(self.bn2(self.conv1(first))), 0.3, self.training))
        return y + (self.shortcut(first) if self.shortcut else x)


class WideResNet(nn.Module):
    def __init__(self, depth: int, factor: int, classes: int = 10):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        blocks, channels = [], 16
        for stage in range(3):
            for k in range((depth - 4) // 6):
                n_out = 16 * factor * 2**stage
                blocks.append(WideBlock(channels, n_out, 2 if stage and not k else 1))
                channels = n_out
        self.blocks = nn.Sequential(*blocks)
        self.bn, self.fc = nn.BatchNorm2d(channels), nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.blocks(self.conv(x))))
        return self.fc(F.avg_pool2d(x, x.shape[-1]).flatten(1))


class DenseLayer(nn.Module):
    """Huang et al. 2017, DenseNet-B: 1 x 1 to four times the growth, then 3 x 3."""

    def __init__(self, n_in: int, growth: int):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(n_in), nn.BatchNorm2d(4 * growth)
        self.conv1 = nn.Conv2d(n_in, 4 * growth, 1, bias=False)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, features: list[Tensor]) -> Tensor:
        x = torch.cat(features, 1)
        return self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))


class DenseBlock(nn.Module):
    def __init__(self, n: int, channels: int, growth: int):
        super().__init__()
        self.layers = nn.ModuleList(DenseLayer(channels + k * growth, growth) for k in range(n))

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(features))
        return torch.cat(features, 1)


class DenseNet(nn.Module):
    def __init__(
        self, blocks: Sequence[int], growth: int = 32, start: int = 64, classes: int = CLASSES
    ):
        super().__init__()
        steps: list[nn.Module] = [
            conv_norm(3, start, 7, partial(nn.ReLU, inplace=True), stride=2),
            nn.MaxPool2d(3, 2, 1),
        ]
        channels = start
        for k, n in enumerate(blocks):
            steps.append(DenseBlock(n, channels, growth))
            channels += n * growth
            if k < len(blocks) - 1:
                half = nn.Conv2d(channels, channels // 2, 1, bias=False)
                steps += [nn.BatchNorm2d(channels), nn.ReLU(), half, nn.AvgPool2d(2, 2)]
                channels //= 2
        self.features = nn.Sequential(*steps, nn.BatchNorm2d(channels))
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(F.relu(self.features(x)), (1, 1))
        return self.classifier(torch.flatten(x, 1))


class Squeeze(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018)."""

    def __init__(self, channels: int, inner: int, act: type, gate: type):
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)
        self.act, self.gate = act(), gate()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.fc2(self.act(self.fc1(x.mean((2, 3), keepdim=True)))))


class Inverted(nn.Module):
    """Inverted residual: expand 1 x 1, depthwise, (squeeze,) project 1 x 1."""

    def __init__(
        self,
        n_in: int,
        inner: int,
        n_out: int,
        size: int,
        stride: int,
        act: type,
        squeeze: Callable[[int], nn.Module] | None = None,
    ):
        super().__init__()
        layers = [conv_norm(n_in, inner, 1, act)] if inner != n_in else []
        layers.append(conv_norm(inner, inner, size, act, stride=stride, groups=inner))
        layers += [squeeze(inner)] if squeeze else []
        self.layers = nn.Sequential(*layers, conv_norm(inner, n_out))
        self.residual = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


def eighth(value: float) -> int:
    """The nearest multiple of 8 that is not more than a tenth smaller."""
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * value else rounded


class Mobile(nn.Module):
    """Stem, inverted residuals, a last 1 x 1 convolution, mean, head."""

    def __init__(self, stem: int, act: type, blocks: Sequence[nn.Module], last: nn.Module):
        super().__init__()
        self.features = nn.Sequential(conv_norm(3, stem, 3, act, stride=2), *blocks)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.features(x))


# Sandler et al. 2018, Table 2: expansion, channels, repetitions, stride.
MOBILE_V2 = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
    (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip


def _mobilenet_v2(rows: Sequence[tuple[int, ...]], scale: float, classes: int) -> nn.Module:
    channels = stem = eighth(32 * scale)
    blocks = []
    for factor, width, n, stride in rows:
        for k in range(n):
            n_out = eighth(width * scale)
            blocks.append(
                Inverted(channels, channels * factor, n_out, 3, 1 if k else stride, nn.ReLU6)
            )
            channels = n_out
    wide = eighth(1280 * scale)
    last = nn.Sequential(
        conv_norm(channels, wide, 1, nn.ReLU6), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Dropout(0.2), nn.Linear(wide, classes),
    )  # fmt: skip
    return Mobile(stem, nn.ReLU6, blocks, last)


# Howard et al. 2019, Tables 1 and 2: kernel, expanded, out, squeeze, hard-swish, stride.
MOBILE_V3 = {
    "small": (
        (3, 16, 16, 1, 0, 2), (3, 72, 24, 0, 0, 2), (3, 88, 24, 0, 0, 1), (5, 96, 40, 1, 1, 2),
        (5, 240, 40, 1, 1, 1), (5, 240, 40, 1, 1, 1), (5, 120, 48, 1, 1, 1), (5, 144, 48, 1, 1, 1),
        (5, 288, 96, 1, 1, 2), (5, 576, 96, 1, 1, 1), (5, 576, 96, 1, 1, 1),
    ),
    "large": (
        (3, 16, 16, 0, 0, 1), (3, 64, 24, 0, 0, 2), (3, 72, 24, 0, 0, 1), (5, 72, 40, 1, 0, 2),
        (5, 120, 40, 1, 0, 1), (5, 120, 40, 1, 0, 1), (3, 240, 80, 0, 1, 2), (3, 200, 80, 0, 1, 1),
        (3, 184, 80, 0, 1, 1), (3, 184, 80, 0, 1, 1), (3, 480, 112, 1, 1, 1),
        (3, 672, 112, 1, 1, 1), (5, 672, 160, 1, 1, 2), (5, 960, 160, 1, 1, 1),
        (5, 960, 160, 1, 1, 1),
    ),
}  # fmt: skip


def _mobilenet_v3(rows: Sequence[tuple[int, ...]], hidden: int, classes: int) -> nn.Module:
    def squeeze(n: int) -> nn.Module:
        return Squeeze(n, eighth(n / 4), nn.ReLU, nn.Hardsigmoid)

    channels, blocks = 16, []
    for size, inner, n_out, squeezed, hard, stride in rows:
        act = nn.Hardswish if hard else nn.ReLU
        blocks.append(
            Inverted(channels, inner, n_out, size, stride, act, squeeze if squeezed else None)
        )
        channels = n_out
    wide = 6 * channels
    last = nn.Sequential(
        conv_norm(channels, wide, 1, nn.Hardswish), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(wide, hidden), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(hidden, classes),
    )  # fmt: skip
    return Mobile(16, nn.Hardswish, blocks, last)


# Tan and Le 2019, Table 1: expansion, kernel, stride, channels, repetitions.
EFFICIENT_B0 = (
    (1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3), (6, 5, 2, 192, 4), (6, 3, 1, 320, 1),
)  # fmt: skip


def _efficientnet(rows: Sequence[tuple[int, ...]], wide: int, classes: int) -> nn.Module:
    channels, blocks = 32, []
    for factor, size, stride, n_out, n in rows:
        for k in range(n):
            squeezed = max(1, channels // 4)

            def squeeze(inner: int, squeezed: int = squeezed) -> nn.Module:
                return Squeeze(inner, squeezed, nn.SiLU, nn.Sigmoid)

            step = 1 if k else stride
            blocks.append(
                Inverted(channels, channels * factor, n_out, size, step, nn.SiLU, squeeze)
            )
            channels = n_out
    last = nn.Sequential(
        conv_norm(channels, wide, 1, nn.SiLU), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Dropout(0.2), nn.Linear(wide, classes),
    )  # fmt: skip
    return Mobile(32, nn.SiLU, blocks, last)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """Liu et al. 2022, Fig. 4: depthwise 7 x 7, LayerNorm, two linears, a scale per channel."""

    def __init__(self, n: int):
        super().__init__()
        self.dwconv = nn.Conv2d(n, n, 7, padding=3, groups=n)
        self.norm = nn.LayerNorm(n, eps=1e-6)
        self.pwconv1, self.pwconv2 = nn.Linear(n, 4 * n), nn.Linear(4 * n, n)
        self.gamma = nn.Parameter(1e-6 * torch.ones(n))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    def __init__(self, depths: Sequence[int], widths: Sequence[int], classes: int = CLASSES):
        super().__init__()
        steps: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, 4), ChannelNorm(widths[0], eps=1e-6)]
        for k, (depth, n) in enumerate(zip(depths, widths, strict=True)):
            if k:
                steps += [ChannelNorm(widths[k - 1], eps=1e-6), nn.Conv2d(widths[k - 1], n, 2, 2)]
            steps += [ConvNeXtBlock(n) for _ in range(depth)]
        self.steps = nn.Sequential(*steps)
        self.norm = nn.LayerNorm(widths[-1], eps=1e-6)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.steps(x).mean((-2, -1))))


def double_conv(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(conv_norm(n_in, n_out, 3, nn.ReLU), conv_norm(n_out, n_out, 3, nn.ReLU))


class UNet(nn.Module):
    """Ronneberger et al. 2015 with padded convolutions and BatchNorm."""

    def __init__(
        self, width: int, depth: int = 4, classes: int = 2, *, norm: bool = True, up: str = "conv"
    ):
        super().__init__()
        widths = [width * 2**k for k in range(depth + 1)]
        self.down = nn.ModuleList(
            double_conv(a, b) for a, b in zip([3, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * n, n, 2, 2)
            if up == "conv"
            else nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(2 * n, n, 1))
            for n in widths[:-1]
        )
        self.join = nn.ModuleList(double_conv(2 * n, n) for n in widths[:-1])
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for k, step in enumerate(self.down):
            x = step(F.max_pool2d(x, 2) if k else x)
            skips.append(x)
        for k in reversed(range(len(self.up))):
            x = self.join[k](torch.cat([skips[k], self.up[k](x)], 1))
        return self.head(x)


class ConvAutoencoder(nn.Module):
    """Strided convolutions down to a code, transposed convolutions back to the image."""

    def __init__(self, widths: Sequence[int], code: int, side: int):
        super().__init__()
        pairs = list(zip([3, *widths], widths, strict=False))
        self.side, last = side // 2 ** len(widths), widths[-1]
        self.encoder = nn.Sequential(
            *(layer for a, b in pairs for layer in (nn.Conv2d(a, b, 3, 2, 1), nn.ReLU())),
            nn.Flatten(),
            nn.Linear(last * self.side**2, code),
        )
        self.widen = nn.Linear(code, last * self.side**2)
        back: list[nn.Module] = []
        for a, b in reversed(pairs):
            back += [nn.ReLU(), nn.ConvTranspose2d(b, a, 3, 2, 1, output_padding=1)]
        self.decoder = nn.Sequential(nn.Unflatten(1, (last, self.side, self.side)), *back)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.decoder(self.widen(self.encoder(x))))


def _autoencoder(*widths: int) -> nn.Module:
    """Hinton and Salakhutdinov 2006: 784-1000-500-250-30 and back."""
    there = list(pairwise(widths))
    pairs = there + [(b, a) for a, b in reversed(there)]
    layers = [layer for a, b in pairs for layer in (nn.Linear(a, b), nn.Sigmoid())]
    del layers[2 * len(there) - 1]  # the code is linear
    return nn.Sequential(*layers)


class MixerBlock(nn.Module):
    """Tolstikhin et al. 2021: one MLP over patches, one over channels."""

    def __init__(self, tokens: int, channels: int, token_hidden: int, channel_hidden: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.tokens = nn.Sequential(
            nn.Linear(tokens, token_hidden), nn.GELU(), nn.Linear(token_hidden, tokens)
        )
        self.channels = nn.Sequential(
            nn.Linear(channels, channel_hidden), nn.GELU(), nn.Linear(channel_hidden, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class Mixer(nn.Module):
    def __init__(
        self, side: int, patch: int, channels: int, depth: int, hidden: tuple[int, int],
        classes: int = CLASSES,
    ):  # fmt: skip
        super().__init__()
        self.stem = nn.Conv2d(3, channels, patch, patch)
        tokens = (side // patch) ** 2
        self.blocks = nn.Sequential(*(MixerBlock(tokens, channels, *hidden) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(channels), nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(x)).mean(1))


def _vgg(depth: int, norm: bool, *, small: bool = False):
    divisor, classes = (16, 5) if small else (1, CLASSES)
    return seeded(lambda: VGG(depth, norm=norm, divisor=divisor, classes=classes), 3, 32, 32)


def _resnet(block, layers, *, small: bool = False, **options):
    if small:
        options["groups"] = min(4, options.get("groups", 1))
        layers, options = (1, 2), {**options, "width": 8, "classes": 5}
        options["base_width"] = options.get("base_width", 64) * (8 if options["groups"] > 1 else 1)
    return seeded(lambda: ResNet(block, layers, **options), 3, 64, 64)


def wide_resnet(*, small: bool = False):
    return seeded(lambda: WideResNet(10, 1) if small else WideResNet(28, 10), 3, 32, 32)


def densenet(*, small: bool = False):
    if small:
        return seeded(lambda: DenseNet((2, 3), growth=4, start=6, classes=5), 3, 32, 32)
    return seeded(lambda: DenseNet((6, 12, 24, 16)), 3, 64, 64)


def mobilenet_v2(*, small: bool = False):
    rows, scale, classes = (MOBILE_V2[:3], 0.25, 5) if small else (MOBILE_V2, 1.0, CLASSES)
    return seeded(lambda: _mobilenet_v2(rows, scale, classes), 3, 64, 64)


def _mobile_v3(size: str, *, small: bool = False):
    rows = MOBILE_V3[size]
    # What a few of the rows hold: with and without squeeze, ReLU and hard-swish, a residual.
    rows = tuple(rows[k] for k in (1, 4, 5, 10) if k < len(rows)) if small else rows
    hidden = 16 if small else {"small": 1024, "large": 1280}[size]
    return seeded(lambda: _mobilenet_v3(rows, hidden, 5 if small else CLASSES), 3, 64, 64)


def efficientnet(*, small: bool = False):
    if small:
        rows = ((1, 3, 1, 8, 1), (6, 5, 2, 8, 2))
        return seeded(lambda: _efficientnet(rows, 24, 5), 3, 32, 32)
    return seeded(lambda: _efficientnet(EFFICIENT_B0, 1280, CLASSES), 3, 64, 64)


def convnext(*, small: bool = False):
    if small:
        return seeded(lambda: ConvNeXt((1, 2), (6, 8), 5), 3, 32, 32)
    return seeded(lambda: ConvNeXt((3, 3, 9, 3), (96, 192, 384, 768)), 3, 64, 64)


def _unet(up: str, *, small: bool = False):
    width, depth, side = (4, 2, 16) if small else (64, 4, 32)
    return seeded(lambda: UNet(width, depth, up=up), 3, side, side)


def conv_autoencoder(*, small: bool = False):
    widths, code = ((4, 6), 5) if small else ((32, 64, 128), 128)
    return seeded(lambda: ConvAutoencoder(widths, code, 32), 3, 32, 32)


def autoencoder(*, small: bool = False):
    widths = (12, 8, 6, 3) if small else (784, 1000, 500, 250, 30)
    return seeded(lambda: _autoencoder(*widths), widths[0])


def mixer(*, small: bool = False):
    if small:
        return seeded(lambda: Mixer(16, 4, 8, 2, (6, 10), 5), 3, 16, 16)
    return seeded(lambda: Mixer(224, 16, 768, 12, (384, 3072)), 3, 224, 224)


CATALOG = {
    "VGG-11": partial(_vgg, 11, False),
    "VGG-11 with BatchNorm": partial(_vgg, 11, True),
    "VGG-16": partial(_vgg, 16, False),
    "VGG-16 with BatchNorm": partial(_vgg, 16, True),
    "ResNet-18": partial(_resnet, BasicBlock, (2, 2, 2, 2)),
    "ResNet-50": partial(_resnet, Bottleneck, (3, 4, 6, 3)),
    "Wide ResNet-50-2": partial(_resnet, Bottleneck, (3, 4, 6, 3), base_width=128),
    "Wide ResNet-28-10": wide_resnet,
    "ResNeXt-50 32x4d": partial(_resnet, Bottleneck, (3, 4, 6, 3), groups=32, base_width=4),
    "DenseNet-121": densenet,
    "MobileNetV2": mobilenet_v2,
    "MobileNetV3-Small": partial(_mobile_v3, "small"),
    "MobileNetV3-Large": partial(_mobile_v3, "large"),
    "EfficientNet-B0": efficientnet,
    "ConvNeXt-T": convnext,
    "U-Net": partial(_unet, "conv"),
    "U-Net with bilinear upsampling": partial(_unet, "bilinear"),
    "Autoencoder": autoencoder,
    "Convolutional autoencoder": conv_autoencoder,
    "MLP-Mixer-B/16": mixer,
}
