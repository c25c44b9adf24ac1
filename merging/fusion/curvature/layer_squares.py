"""Sums over examples of squared gradients of single layers, a few examples at a time.

A linear layer's gradient for one example is the sum over positions of outer products of what its
output's gradient and its input are; a convolution is a linear layer on patches. Where a layer has
one position per example, the sum of squares is one product of matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from merging.fusion.curvature.patches import Convolution, patches, reads_patches

Squares = dict[str, Tensor]
Measure = Callable[[nn.Module, Mapping[str, Tensor], Tensor, Tensor], Squares]

# Bytes of single examples' gradients and patches that are held at one time.
_CHUNK_BYTES = 1 << 23
_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)
_CHANNEL_NORMS = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d,
    nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
)  # fmt: skip


def measures(layer: nn.Module) -> tuple[Measure, ...]:
    """Return the ways to square a layer's gradients; a trial has to tell which one is right.

    Args:
        layer: Any module.

    Returns:
        Functions of the layer, its own parameters and buffers, its input and its output's
        gradient, which return the sums over the examples by parameter; none for other layers.
    """
    if isinstance(layer, nn.Linear):
        return (_linear,)
    if reads_patches(layer):
        return (_convolution,)
    if isinstance(layer, nn.Embedding):
        return (_embedding,) if layer.max_norm is None and not layer.scale_grad_by_freq else ()
    if isinstance(layer, _CHANNEL_NORMS):
        return (_norm_of_channels,)
    if isinstance(layer, _NORMS):
        return (_norm_of_last, _norm_of_channels)
    return ()


def _linear(layer: nn.Module, _: Mapping[str, Tensor], x: Tensor, gradient: Tensor) -> Squares:
    x, g = (value.reshape(len(value), -1, value.shape[-1]) for value in (x, gradient))
    squares = {"weight": _products(g.transpose(1, 2), x.transpose(1, 2))}
    if getattr(layer, "bias", None) is not None:
        squares["bias"] = g.sum(1).square_().sum(0)
    return squares


def _products(g: Tensor, x: Tensor) -> Tensor:
    """Return `sum_n (g[n] @ x[n].T)^2` of `[n, out, positions]` and `[n, in, positions]`."""
    if g.shape[2] == 1:
        return g[:, :, 0].square().T @ x[:, :, 0].square()
    total = g.new_zeros(g.shape[1], x.shape[1])
    size = max(1, _CHUNK_BYTES // (total.nbytes or 1))
    for some_g, some_x in zip(g.split(size), x.split(size), strict=True):
        total += torch.bmm(some_g, some_x.transpose(1, 2)).square_().sum(0)
    return total


def _convolution(layer: nn.Module, _: Mapping[str, Tensor], x: Tensor, gradient: Tensor) -> Squares:
    assert isinstance(layer, Convolution)
    squares = {}
    if layer.bias is not None:
        squares["bias"] = gradient.flatten(2).sum(2).square_().sum(0)
    groups = layer.groups
    g = gradient.flatten(2).unflatten(1, (groups, -1))
    total = g.new_zeros(groups, g.shape[2], layer.weight[0].numel())
    per_example = groups * total.shape[2] * g.shape[3] * g.element_size()
    size = max(1, _CHUNK_BYTES // per_example)
    for some_x, some_g in zip(x.split(size), g.split(size), strict=True):
        read = patches(layer, some_x).unflatten(1, (groups, -1))
        for k in range(groups):
            total[k] += _products(some_g[:, k], read[:, k])
    return {**squares, "weight": total.view(layer.weight.shape)}


def _embedding(layer: nn.Module, _: Mapping[str, Tensor], x: Tensor, gradient: Tensor) -> Squares:
    """Square an embedding's gradients: rows that are read several times have the sum for theirs."""
    assert isinstance(layer, nn.Embedding)
    examples = torch.arange(len(x)).repeat_interleave(x[0].numel())
    rows, places = (examples * layer.num_embeddings + x.flatten()).unique(return_inverse=True)
    sums = gradient.new_zeros(len(rows), layer.embedding_dim)
    sums.index_add_(0, places, gradient.reshape(-1, layer.embedding_dim))
    tokens = rows % layer.num_embeddings
    if layer.padding_idx is not None:
        sums[tokens == layer.padding_idx] = 0.0
    total = gradient.new_zeros(layer.num_embeddings, layer.embedding_dim)
    return {"weight": total.index_add_(0, tokens, sums.square_())}


def _norm_of_channels(
    layer: nn.Module, own: Mapping[str, Tensor], x: Tensor, gradient: Tensor
) -> Squares:
    return _norm(layer, own, x, gradient, axes=(1,))


def _norm_of_last(
    layer: nn.Module, own: Mapping[str, Tensor], x: Tensor, gradient: Tensor
) -> Squares:
    last = gradient.dim() - next(layer.parameters()).dim()
    return _norm(layer, own, x, gradient, axes=tuple(range(last, gradient.dim())))


def _norm(
    layer: nn.Module,
    own: Mapping[str, Tensor],
    x: Tensor,
    gradient: Tensor,
    axes: tuple[int, ...],
) -> Squares:
    """Return the squares of factors and shifts along some axes of the output.

    With factors 1 and shifts 0, a layer's output is what its factors multiply.
    """
    names = [name for name, _ in layer.named_parameters()]
    unit = {n: torch.full_like(own[n], float(n == "weight")) for n in names}
    with torch.no_grad():
        normalized = functional_call(layer, {**own, **unit}, (x,))
    summed = [axis for axis in range(1, gradient.dim()) if axis not in axes]
    squares = {}
    for name in names:
        single = gradient * normalized if name == "weight" else gradient
        single = single.sum(summed) if summed else single
        squares[name] = single.square().sum(0)
    return squares
