"""Weighted sums of the same few dicts of tensors, over and over, without allocating.

A fresh tensor per sum would cost more than the sum: large blocks come from the operating system
and go back to it every time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

Key = TypeVar("Key")


class Mixture(Generic[Key]):
    """Sums of corners, each in one stretch of memory per type of number.

    Args:
        corners: Dicts of tensors with equal keys and shapes. Tensors that are not floating are
            taken from the first.
    """

    def __init__(self, corners: Sequence[Mapping[Key, Tensor]]) -> None:
        first = corners[0]
        self._rest = {key: v for key, v in first.items() if not v.is_floating_point()}
        self._stretches: list[tuple[list[Tensor], Tensor]] = []
        self._views: dict[Key, Tensor] = {}
        for dtype in {v.dtype for v in first.values() if v.is_floating_point()}:
            keys = [key for key, v in first.items() if v.dtype == dtype]
            flat = [torch.cat([_laid_out(c[key]).reshape(-1) for key in keys]) for c in corners]
            out = torch.empty_like(flat[0])
            self._stretches.append((flat, out))
            pieces = out.split([first[key].numel() for key in keys])
            for key, piece in zip(keys, pieces, strict=True):
                self._views[key] = _as_given(piece.view(_laid_out(first[key]).shape))

    def at(self, point: Sequence[float]) -> dict[Key, Tensor]:
        """The weighted sum of the corners; a corner of weight 0 is left out.

        Args:
            point: One weight per corner.

        Returns:
            Tensors that the next call overwrites. A lone corner of weight 1 comes out bit for bit.
        """
        terms = [k for k, weight in enumerate(point) if weight != 0] or [0]
        for flat, out in self._stretches:
            if point[terms[0]] == 1:
                out.copy_(flat[terms[0]])
            else:
                torch.mul(flat[terms[0]], point[terms[0]], out=out)
            for k in terms[1:]:
                out.add_(flat[k], alpha=point[k])
        return {**self._rest, **self._views}


def _laid_out(value: Tensor) -> Tensor:
    """Kernels and maps with the channels last, as convolutions and pooling like them best."""
    return value.permute(0, 2, 3, 1) if value.dim() == 4 else value


def _as_given(value: Tensor) -> Tensor:
    return value.permute(0, 3, 1, 2) if value.dim() == 4 else value
