"""Where in a file a tensor lies, and how it is read from there."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import torch
from torch import Tensor

from merging.files.checkpoints.limits import (
    refuse,
)


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in its file.

    Attributes:
        dtype: Of its numbers.
        shape: Its sizes.
        stride: Steps between neighbours along each axis; None if it is contiguous.
        start: Its first byte in the file.
        length: How many bytes it reaches over.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...] | None
    start: int
    length: int

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor in memory."""
        return math.prod(self.shape) * self.dtype.itemsize


Index = tuple[dict[str, Place], dict[str, str]]


def read_tensor(file: BinaryIO, place: Place, key: str, name: str) -> Tensor:
    """Read one tensor, and nothing else of the file.

    Args:
        file: The file that was indexed.
        place: Where the tensor lies in it.
        key: The tensor's name, for the message.
        name: What to call the file in the message.

    Returns:
        The tensor, contiguous, on the CPU, in memory of its own.

    Raises:
        CheckpointError: If the file ends before the tensor does.
    """
    if place.length == 0 or place.nbytes == 0:
        return torch.empty(place.shape, dtype=place.dtype)
    flat = _read_into(torch.empty(place.length, dtype=torch.uint8), file, place, 0, key, name)
    if place.stride is None:
        return flat.view(place.shape)
    tensor = flat.as_strided(place.shape, place.stride)
    if tensor.is_contiguous() and tensor.numel() == flat.numel():
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


def read_blocks(
    file: BinaryIO, place: Place, key: str, name: str, entries: int
) -> Iterator[Tensor]:
    """Read one tensor in blocks, all into the same memory, so that no more is asked for.

    Args:
        file: The file that was indexed.
        place: Where the tensor lies in it.
        key: The tensor's name, for the message.
        name: What to call the file in the message.
        entries: How many entries a block has; the last has what is left.

    Yields:
        Blocks `[n]` in the order of the entries. Each is overwritten by the next. A tensor whose
        entries lie apart in the file is read whole first.

    Raises:
        CheckpointError: If the file ends before the tensor does.
    """
    if place.length != place.nbytes or not _is_contiguous(place):
        yield from read_tensor(file, place, key, name).view(-1).split(entries)
        return
    memory = torch.empty(min(entries * place.dtype.itemsize, place.nbytes), dtype=torch.uint8)
    for start in range(0, place.nbytes, len(memory) or 1):
        raw = memory[: place.nbytes - start]
        yield _read_into(raw, file, place, start, key, name)


def _read_into(
    raw: Tensor, file: BinaryIO, place: Place, start: int, key: str, name: str
) -> Tensor:
    """Fill memory with what lies in a tensor's place from a byte on; the numbers in it."""
    file.seek(place.start + start)
    if file.readinto(raw.numpy().data) != len(raw):  # type: ignore[attr-defined]
        refuse(name, key, "is cut short: the file has changed while it was read; try again")
    if sys.byteorder == "big":
        raw = raw.view(-1, place.dtype.itemsize).flip(1).reshape(-1)
    if place.dtype == torch.bool:  # any byte but 0 is true
        raw = raw != 0
    return raw.view(place.dtype)


def _is_contiguous(place: Place) -> bool:
    if place.stride is None:
        return True
    return torch.empty_strided(place.shape, place.stride, device="meta").is_contiguous()
