"""Entries in blocks: tensors that are read, computed and written a megabyte at a time.

A block stays in the processor's cache from the file it comes from to the file it goes to, and no
memory has to be asked of the system for it: that is faster than whole tensors, and their size does
not matter. What is computed here is computed in float32, or in float64 where a tensor has that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from itertools import combinations, combinations_with_replacement
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from merging.files.checkpoints.read import TensorSpec

_BLOCK = 1 << 18  # entries
_KEPT = 31 << 20  # bytes; glibc adapts to no more than 32 MiB
_STRETCH = 1 << 12


@dataclass(frozen=True, eq=False)
class Entries:
    """A tensor as blocks of its entries, which are read or computed as they are asked for.

    Attributes:
        shape: Of the whole tensor.
        dtype: In which the whole tensor is, unless another is asked for.
        blocks: Starts over: gives blocks `[n]`, the last one shorter. A block counts until the
            next is asked for, and must not be written into.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    blocks: Callable[[], Iterator[Tensor]]

    def __iter__(self) -> Iterator[Tensor]:
        return self.blocks()

    def tensor(self, dtype: torch.dtype | None = None) -> Tensor:
        """Return the whole tensor, in memory of its own."""
        whole = torch.empty(self.shape, dtype=dtype or self.dtype)
        into, start = whole.view(-1), 0
        with block_by_block():
            for block in self:
                into[start : start + len(block)] = block
                start += len(block)
        return whole


@runtime_checkable
class InBlocks(Protocol):
    """A state whose tensors can be had in blocks, as those of an open checkpoint can.

    Attributes:
        specs: Name → shape and dtype of each tensor.
    """

    specs: Mapping[str, TensorSpec]

    def blocks(self, name: str, entries: int) -> Iterator[Tensor]:
        """Yield one tensor in blocks of so many entries.

        Each block counts until the next is asked for.
        """


def specs_of(state: Mapping[str, Tensor]) -> Mapping[str, Any]:
    """Return what has the shape and the dtype of every tensor of a state, without reading files."""
    found: Mapping[str, Any] = getattr(state, "specs", state)
    return found


def entries(state: Mapping[str, Tensor], name: str) -> Entries:
    """Return the entries of one tensor in its own type; open files are read block by block.

    Args:
        state: A state dict, or one that gives blocks.
        name: The tensor's.

    Returns:
        Its entries.

    Example:
        >>> [block.tolist() for block in entries({"w": torch.eye(2)}, "w")]
        [[1.0, 0.0, 0.0, 1.0]]
    """
    if isinstance(state, InBlocks):
        spec = state.specs[name]
        return Entries(spec.shape, spec.dtype, lambda: state.blocks(name, _BLOCK))
    return entries_of(state[name])


def entries_of(tensor: Tensor, size: int = _BLOCK) -> Entries:
    """Return the entries of a tensor in memory, so many in a block."""
    flat = tensor.detach().reshape(-1)
    parts = flat.split(size) if len(flat) else ()  # no empty block, as files have none
    return Entries(tuple(tensor.shape), tensor.dtype, lambda: iter(parts))


def entrywise(function: Callable[[list[Tensor]], Tensor], sources: Sequence[Entries]) -> Entries:
    """Apply a function of entries to tensors of one shape, block by block.

    Args:
        function: Takes blocks `[n]` of all tensors, in the type that is computed in, and returns a
            block `[n]`; it is called for one block after another.
        sources: Any floating types.

    Returns:
        A tensor in their shape, and in the narrowest type that holds all of theirs; its blocks are
        in the type that is computed in.

    Example:
        >>> ones = entries_of(torch.ones(2))
        >>> entrywise(lambda blocks: blocks[0] + blocks[1], [ones, ones]).tensor()
        tensor([2., 2.])
    """
    dtype = reduce(torch.promote_types, [source.dtype for source in sources])
    return Entries(sources[0].shape, dtype, lambda: map(function, _side_by_side(sources)))


def inner_products(sources: Sequence[Entries], origin: Entries | None = None) -> Tensor:
    """Return the inner products of all pairs of tensors, seen from an origin.

    Args:
        sources: Of one shape.
        origin: What is subtracted from each; nothing unless given.

    Returns:
        float64 `[tensors, tensors]`; blocks are summed in the type that is computed in.

    Example:
        >>> pair = [entries_of(torch.tensor(x)) for x in ([1.0, 2.0], [3.0, 0.0])]
        >>> inner_products(pair).tolist()
        [[5.0, 3.0], [3.0, 9.0]]
    """
    count = len(sources)
    total = torch.zeros(count, count, dtype=torch.float64)
    with block_by_block():
        for blocks in _side_by_side([*sources, *([] if origin is None else [origin])]):
            rows = blocks if origin is None else [block - blocks[-1] for block in blocks[:-1]]
            for i, j in combinations_with_replacement(range(count), 2):
                total[i, j] += _dot(rows[i].numpy(), rows[j].numpy())
    return total.triu() + total.triu(1).T


def squared_distances(sources: Sequence[Entries]) -> Tensor:
    """Return the squared distances of all pairs of tensors.

    Args:
        sources: Of one shape.

    Returns:
        float64 `[tensors, tensors]`.

    Example:
        >>> pair = [entries_of(torch.tensor(x)) for x in ([1.0, 2.0], [4.0, 6.0])]
        >>> squared_distances(pair).tolist()
        [[0.0, 25.0], [25.0, 0.0]]
    """
    total = torch.zeros(len(sources), len(sources), dtype=torch.float64)
    with block_by_block():
        for blocks in _side_by_side(sources):
            for i, j in combinations(range(len(sources)), 2):
                step = (blocks[i] - blocks[j]).numpy()  # products would cancel for near models
                total[i, j] += _dot(step, step)
    return total + total.T


@contextmanager
def block_by_block() -> Iterator[None]:
    """Make ready for going through blocks: PyTorch computes in this thread alone meanwhile.

    A step on a block takes less than a tenth of a millisecond. Waiting for a second thread after
    every one gains little, and costs tens of times more where other programs want the processor.
    Asking the system for memory again for every block would cost as much as computing it.
    """
    torch.empty(_KEPT, dtype=torch.uint8)  # given back at once, whereupon glibc keeps that much
    before = torch.get_num_threads()
    if before > 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if before > 1:
            torch.set_num_threads(before)


def computable(tensor: Tensor) -> Tensor:
    """Return the tensor in the type that is computed in: float32, or float64 if it is that."""
    plain = tensor.detach()
    return plain if plain.dtype == torch.float64 else plain.to(torch.float32)


def _side_by_side(sources: Sequence[Entries]) -> Iterator[list[Tensor]]:
    for blocks in zip(*sources, strict=True):
        yield [computable(block) for block in blocks]


def _dot(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return the inner product of two vectors, adding sums of short stretches in float64.

    BLAS, by which NumPy multiplies, would sum a whole block in float32.
    """
    whole = len(a) // _STRETCH * _STRETCH
    parts = np.vecdot(a[:whole].reshape(-1, _STRETCH), b[:whole].reshape(-1, _STRETCH))
    return float(parts.sum(dtype=np.float64)) + float(np.dot(a[whole:], b[whole:]))
