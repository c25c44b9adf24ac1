"""Weighted sums of the same few dicts of tensors, over and over, without allocating.

A fresh tensor per sum would cost more than the sum: large blocks come from the operating system
and go back to it every time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

Key = TypeVar("Key")


@dataclass(frozen=True, eq=False)
class _Stretch:
    """All tensors of one type of number, end to end: of every corner, the sum, a part of it."""

    corners: list[Tensor]
    total: Tensor
    held: Tensor


class Mixture(Generic[Key]):
    """Sums of corners, each in one stretch of memory per type of number.

    Along the rows of a grid a single weight changes, so the sum of the other terms is held.

    Args:
        corners: Dicts of tensors with equal keys and shapes. Tensors that are not floating are
            taken from the first.
    """

    def __init__(self, corners: Sequence[Mapping[Key, Tensor]]) -> None:
        first = corners[0]
        self._rest = {key: v for key, v in first.items() if not v.is_floating_point()}
        self._stretches: list[_Stretch] = []
        self._views: dict[Key, Tensor] = {}
        self._last: tuple[float, ...] = ()
        self._held: tuple[int, tuple[float, ...]] | None = None
        for dtype in {v.dtype for v in first.values() if v.is_floating_point()}:
            keys = [key for key, v in first.items() if v.dtype == dtype]
            flat = [torch.cat([_laid_out(c[key]).reshape(-1) for key in keys]) for c in corners]
            total = torch.empty_like(flat[0])
            self._stretches.append(_Stretch(flat, total, torch.empty_like(total)))
            pieces = total.split([first[key].numel() for key in keys])
            for key, piece in zip(keys, pieces, strict=True):
                self._views[key] = _as_given(piece.view(_laid_out(first[key]).shape))

    def at(self, point: Sequence[float]) -> dict[Key, Tensor]:
        """Return the weighted sum of the corners; a corner of weight 0 is left out.

        Args:
            point: One weight per corner.

        Returns:
            Tensors that the next call overwrites. A lone corner of weight 1 comes out bit for bit.
        """
        changed = [k for k, (w, v) in enumerate(zip(point, self._last, strict=False)) if w != v]
        self._last = tuple(point)
        if len(changed) == 1 and point[changed[0]] != 0 and sum(w != 0 for w in point) > 1:
            self._move_along(changed[0], point)
        else:
            for stretch in self._stretches:
                _add_up(stretch.corners, point, stretch.total)
        return {**self._rest, **self._views}

    def _move_along(self, k: int, point: Sequence[float]) -> None:
        """Sum with only the weight of corner `k` changed since the last point."""
        others = tuple(0.0 if j == k else w for j, w in enumerate(point))
        for stretch in self._stretches:
            if self._held != (k, others):
                _add_up(stretch.corners, others, stretch.held)
            torch.add(stretch.held, stretch.corners[k], alpha=point[k], out=stretch.total)
        self._held = (k, others)


def _add_up(corners: Sequence[Tensor], point: Sequence[float], out: Tensor) -> None:
    terms = [k for k, weight in enumerate(point) if weight != 0] or [0]
    if point[terms[0]] == 1:
        out.copy_(corners[terms[0]])
    else:
        torch.mul(corners[terms[0]], point[terms[0]], out=out)
    for k in terms[1:]:
        out.add_(corners[k], alpha=point[k])


def _laid_out(value: Tensor) -> Tensor:
    """Lay kernels and maps out with the channels last, as convolutions and pooling work best."""
    return value.permute(0, 2, 3, 1) if value.dim() == 4 else value


def _as_given(value: Tensor) -> Tensor:
    return value.permute(0, 3, 1, 2) if value.dim() == 4 else value
