"""Index a safetensors file, whose header is checked before it is believed."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any, BinaryIO, NoReturn

import torch

from merging.files.checkpoints.limits import (
    HOW_TO_SAVE,
    Limits,
    check_dims,
    check_names,
    how_to_convert,
    refuse,
    short,
    unique_keys,
)
from merging.files.checkpoints.tensor_place import Index, Place
from merging.schema.errors import CheckpointError

SAFE_DTYPES = MappingProxyType({
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
})  # fmt: skip

_COMPLEX = ("C32", "C64", "C128")
_HEADER = 256  # bytes that the header may have per tensor


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
                how = how_to_convert(dtype in _COMPLEX)
                refuse(name, key, f"has dtype {dtype[:16]}; {how}")
            check_dims(key, len(shape), name, limits)
        case _:
            refuse(name, key, "is listed without a dtype and a shape; save it again")
    match entry:
        case {"data_offsets": [int(begin), int(end)]} if _whole([begin, end, *shape]):
            return Place(
                dtype=SAFE_DTYPES[dtype],
                shape=tuple(shape),
                stride=None,
                start=start + begin,
                length=end - begin,
            )
    _damaged(f"tensor {short(key)} has a shape or offsets that are not sizes", name)


def _whole(numbers: list[object]) -> bool:
    return all(type(n) is int and 0 <= n < 1 << 62 for n in numbers)


def _damaged(why: str, name: str) -> NoReturn:
    raise CheckpointError(
        f"{name}: the safetensors file is damaged ({why}); copy or download it again"
    )
