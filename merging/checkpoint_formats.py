"""Where the tensors lie in the two kinds of checkpoint file: safetensors and PyTorch zip files.

Both are indexed by what they say about themselves, checked against what is there, before any
weight is read; then each tensor is read from its own place in the file, into memory of its own.
PyTorch's own reader is not used: the pickle in a PyTorch file is followed as data
(`pickle_guard`), so nothing of it can run, and a model can be read one tensor at a time.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, BinaryIO, NoReturn

import torch
from torch import Tensor

from merging.archives import Archive, ArchiveError
from merging.checkpoint_guards import (
    HOW_TO_SAVE,
    Limits,
    check_dims,
    check_dtype,
    check_names,
    first_few,
    refuse,
    short,
    unique_keys,
)
from merging.errors import CheckpointError
from merging.optimizer_state import AdamState, find_optimizer, read_adam
from merging.pickle_guard import View, read_records, span
from merging.pickle_values import Inert
from merging.zip_guard import read_pickle

SAFE_DTYPES = MappingProxyType({
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
})  # fmt: skip

_KEYS = (
    "state_dict", "model_state_dict", "model_state", "model", "params", "parameters", "weights",
    "net", "network", "module", "ema_state_dict", "ema",
)  # fmt: skip
_HEADER = 256  # bytes that the header may have per tensor
_LIGHTNING = "pytorch-lightning_version"
_SHARED = 16  # how many times over a small file may share its memory between tensors
_FREE = 64_000_000


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


def index_safetensors(file: BinaryIO, size: int, name: str, limits: Limits) -> Index:
    """Find the tensors of a safetensors file, once its header is found sound.

    Args:
        file: A safetensors file, by its first bytes.
        size: Of the file, in bytes.
        name: What to call the file in messages.
        limits: The most it may hold.

    Returns:
        The tensors' places; and notes: the file's own, and its `format`.

    Raises:
        CheckpointError: If the file is damaged, over the limits, or holds what cannot be merged.
    """
    header, start = _safetensors_header(file, size, name, limits)
    meta = header.pop("__metadata__", {})
    check_names(header, name, limits)
    places = {key: _entry(key, entry, start, name, limits) for key, entry in header.items()}
    end = start
    for key, place in sorted(places.items(), key=lambda item: (item[1].start, item[1].length)):
        if place.start != end or place.length != place.nbytes:
            _damaged(
                f"tensor {short(key)} of shape {list(place.shape)} lies at bytes "
                f"{place.start - start:,} to {place.start - start + place.length:,}, where "
                f"{end - start:,} to {end - start + place.nbytes:,} were due",
                name,
            )
        end += place.length
    if end != size:
        _damaged(f"its tensors take {end - start:,} bytes, and {size - start:,} are there", name)
    notes = {str(key): str(value) for key, value in meta.items()}
    return places, {**notes, "format": "safetensors"}


def index_torch(archive: Archive, entry: str, size: int, name: str, limits: Limits) -> Index:
    """Find the tensors of a PyTorch zip file, from its entries and its pickle.

    Args:
        archive: The zip file.
        entry: The name of its pickle.
        size: Of the file, in bytes.
        name: What to call the file in messages.
        limits: The most it may hold.

    Returns:
        The tensors' places; and notes: `format`, and where they apply `found_under`, `ignored`,
        and `optimizer`, the key of an optimizer's state.

    Raises:
        CheckpointError: If the file is damaged, over the limits, or holds anything but tensors.
    """
    loaded = read_records(read_pickle(archive, entry, name), name)
    views, meta = _state_dict(loaded, name)
    if optimizer := find_optimizer(loaded):
        meta["optimizer"] = optimizer[0]
    check_names(views, name, limits)
    folder = entry.removesuffix("data.pkl") + "data/"
    places = {key: _place(archive, folder, key, views[key], name, limits) for key in views}
    _check_total(places, size, name, limits)
    return places, meta


def index_adam(
    archive: Archive, entry: str, size: int, name: str, limits: Limits
) -> tuple[dict[str, Place], AdamState]:
    """Find what Adam remembers in a PyTorch zip file, from its entries and its pickle.

    Args:
        archive: The zip file.
        entry: The name of its pickle.
        size: Of the file, in bytes.
        name: What to call the file in messages.
        limits: The most it may hold.

    Returns:
        The places of the tensors of Adam's state, and that state.

    Raises:
        CheckpointError: If there is no state of Adam, or the file is damaged or over the limits.
    """
    state = read_adam(read_records(read_pickle(archive, entry, name), name), name, limits)
    folder = entry.removesuffix("data.pkl") + "data/"
    views = state.views.items()
    places = {key: _place(archive, folder, key, view, name, limits) for key, view in views}
    _check_total(places, size, name, limits)
    return places, state


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


def _safetensors_header(
    file: BinaryIO, size: int, name: str, limits: Limits
) -> tuple[dict[str, Any], int]:
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if length > size - 8:
        raise CheckpointError(
            f"{name}: the file is cut short: its header should have {length:,} bytes, and only "
            f"{size - 8:,} follow; copy or download it again"
        )
    if length > _HEADER * max(limits.max_tensors, 100):
        raise CheckpointError(
            f"{name}: the header has {length:,} bytes, more than {limits.max_tensors:,} tensors "
            f"need; {HOW_TO_SAVE}"
        )
    why = "it is not a dict of tensors"
    try:
        header = json.loads(file.read(length), object_pairs_hook=unique_keys)
        if isinstance(header, dict) and isinstance(header.get("__metadata__", {}), dict):
            return header, 8 + length
    except (ValueError, RecursionError) as error:
        why = str(error)[:150]
    raise CheckpointError(
        f"{name}: the header of the safetensors file is damaged ({why}); copy or download it again"
    )


def _entry(key: str, entry: object, start: int, name: str, limits: Limits) -> Place:
    match entry:
        case {"dtype": str(dtype), "shape": list(shape)}:
            if dtype not in SAFE_DTYPES:
                refuse(name, key, f"has dtype {dtype[:16]}; save it as float32")
            check_dims(key, len(shape), name, limits)
        case _:
            refuse(name, key, "is listed without a dtype and a shape; save it again")
    match entry:
        case {"data_offsets": [int(begin), int(end)]} if _whole([begin, end, *shape]):
            return Place(SAFE_DTYPES[dtype], tuple(shape), None, start + begin, end - begin)
    _damaged(f"tensor {short(key)} has a shape or offsets that are no sizes", name)


def _whole(numbers: list[object]) -> bool:
    return all(type(n) is int and 0 <= n < 1 << 62 for n in numbers)


def _damaged(why: str, name: str) -> NoReturn:
    raise CheckpointError(
        f"{name}: the safetensors file is damaged ({why}); copy or download it again"
    )


def _state_dict(loaded: object, name: str) -> tuple[dict[str, View], dict[str, str]]:
    lightning = isinstance(loaded, dict) and _LIGHTNING in loaded
    meta = {"format": "lightning" if lightning else "pytorch"}
    for _ in range(3):
        inner = _inside(loaded)
        if inner is None or not isinstance(loaded, dict):
            break
        meta["found_under"] = ".".join(filter(None, (meta.get("found_under"), inner)))
        if beside := [short(str(key)) for key in loaded if key != inner]:
            meta["ignored"] = first_few(beside)
        loaded = loaded[inner]
    if not isinstance(loaded, dict):
        raise CheckpointError(
            f"{name}: holds {_kind(loaded)}, not a dict of tensors; {HOW_TO_SAVE}"
        )
    for key, value in loaded.items():
        if not isinstance(key, str):
            raise CheckpointError(
                f"{name}: a name is {type(key).__name__}, not text; {HOW_TO_SAVE}"
            )
        if not isinstance(value, View):
            refuse(name, key, f"is {_kind(value)}, not a tensor; leave it out")
    return loaded, meta


def _kind(value: object) -> str:
    if isinstance(value, Inert):
        return short(value.name)
    return "Tensor" if isinstance(value, View) else type(value).__name__


def _inside(loaded: object) -> str | None:
    if not isinstance(loaded, dict):
        return None
    dicts = [key for key in _KEYS if isinstance(loaded.get(key), dict)]
    with_tensors = [k for k in dicts if any(isinstance(v, View) for v in loaded[k].values())]
    return next(iter(with_tensors + dicts), None)


def _place(archive: Archive, folder: str, key: str, view: View, name: str, limits: Limits) -> Place:
    check_dtype(key, view.storage.dtype, name)
    check_dims(key, len(view.shape), name, limits)
    record, width = folder + view.storage.key, view.storage.dtype.itemsize
    if record not in archive.entries:
        refuse(name, key, f"has no values in the file ({short(record)} is missing); save it again")
    there = min(view.storage.numel * width, archive.size(record))
    claimed = math.prod(view.shape) * width
    reach = (view.offset + span(view)) * width
    if claimed > there or view.storage.numel * width > archive.size(record) or (
        claimed and reach > there
    ):  # fmt: skip
        refuse(
            name,
            key,
            f"claims {max(claimed, reach):,} bytes, but at most {there:,} are stored (an expanded "
            "view?); save its clone()",
        )
    try:
        start = archive.place(record) + view.offset * width
    except ArchiveError as error:
        raise CheckpointError(f"{name}: {error}; copy or download it again") from error
    return Place(view.storage.dtype, view.shape, view.stride, start, span(view) * width)


def _check_total(places: Mapping[str, Place], size: int, name: str, limits: Limits) -> None:
    total = sum(max(place.nbytes, place.length) for place in places.values())
    limit = min(limits.max_bytes, _SHARED * size + _FREE)
    if total > limit:
        raise CheckpointError(
            f"{name}: its tensors take {total:,} bytes, more than the limit of {limit:,} for a "
            f"file of {size:,} bytes; choose a smaller model, or save each tensor's clone()"
        )
