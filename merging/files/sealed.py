"""What a process keeps in memory for later pieces, and whether anything wrote into it since.

Tensors cannot be made read-only. Whoever keeps some for others seals them; before a result is
kept, it is checked that every seal holds. What was written to with PyTorch shows in a tensor's
version; what was written past PyTorch (a faulty kernel) shows in its contents.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from merging.schema.errors import ComputeError


@dataclass(frozen=True, eq=False)
class _Seal:
    tensor: weakref.ref[Tensor]
    version: int
    contents: int
    forget: Callable[[], None]

    def holds(self, *, contents: bool) -> bool:
        tensor = self.tensor()
        if tensor is None:
            return True
        return tensor._version == self.version and (
            not contents or _contents(tensor) == self.contents
        )


_SEALS: list[_Seal] = []


def seal(tensors: Iterable[Tensor], forget: Callable[[], None]) -> None:
    """Note what tensors hold, which are kept for others.

    Args:
        tensors: Dense tensors.
        forget: Called if a seal is broken; it has to forget these tensors.
    """
    _SEALS[:] = [kept for kept in _SEALS if kept.tensor() is not None]
    _SEALS.extend(
        _Seal(tensor=weakref.ref(t), version=t._version, contents=_contents(t), forget=forget)
        for t in tensors
    )


def check_seals(*, contents: bool = True) -> None:
    """Make sure that nothing was written into what is kept for others.

    Args:
        contents: Whether to read all contents; if not, only PyTorch's own record is looked at.

    Raises:
        ComputeError: If something was; all of it is forgotten, so that it is read again.
    """
    if all(kept.holds(contents=contents) for kept in _SEALS):
        return
    for forget in {kept.forget for kept in _SEALS}:
        forget()
    _SEALS.clear()
    raise ComputeError(
        "something wrote into data or weights that are shared while this was computed, so the "
        "result was not kept, and they are read again; run it again, and if this comes back, "
        "leave out the model that was added last"
    )


def _contents(tensor: Tensor) -> int:
    raw = tensor.detach().contiguous().view(-1).view(torch.uint8)
    whole = raw.numel() // 8 * 8
    words = raw[:whole].view(torch.int64) if raw.storage_offset() % 8 == 0 else raw[:whole]
    return hash((int(words.sum(dtype=torch.int64)), int(raw[whole:].sum(dtype=torch.int64))))
