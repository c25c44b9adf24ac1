"""A convolution as a linear layer: what each of its outputs reads."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

Convolution = nn.Conv1d | nn.Conv2d


def reads_patches(layer: nn.Module) -> bool:
    """Return whether a layer is a convolution over one or two axes, padded with zeros at most."""
    return (
        isinstance(layer, Convolution) and layer.padding_mode == "zeros" and layer.padding != "same"
    )


def patches(layer: Convolution, x: Tensor) -> Tensor:
    """Return what each output of a convolution reads.

    Args:
        layer: One that `reads_patches`.
        x: `[n, channels, length]` or `[n, channels, height, width]`.

    Returns:
        `[n, channels * kernel, outputs]`, the kernel's places in the order of the weight.

    Example:
        >>> import torch
        >>> patches(nn.Conv1d(1, 1, 2), torch.tensor([[[1.0, 2.0, 3.0]]])).tolist()
        [[[1.0, 2.0], [2.0, 3.0]]]
    """
    axes = len(layer.kernel_size)
    padding = (0,) * axes if isinstance(layer.padding, str) else layer.padding
    padded = F.pad(x, [p for p in reversed(padding) for _ in range(2)])
    steps = padded.stride()[2:]
    reach = [d * (k - 1) for k, d in zip(layer.kernel_size, layer.dilation, strict=True)]
    outputs = [
        (size - far - 1) // s + 1
        for size, far, s in zip(padded.shape[2:], reach, layer.stride, strict=True)
    ]
    # A view with an axis per place of the kernel; copying it is several times as fast as unfold.
    view = padded.as_strided(
        (*padded.shape[:2], *layer.kernel_size, *outputs),
        (
            *padded.stride()[:2],
            *(d * step for d, step in zip(layer.dilation, steps, strict=True)),
            *(s * step for s, step in zip(layer.stride, steps, strict=True)),
        ),
    )
    return view.flatten(2 + axes).flatten(1, 1 + axes)
