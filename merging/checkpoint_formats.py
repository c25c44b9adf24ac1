"""The two kinds of checkpoint file, each read behind its guards: safetensors and PyTorch zip files.

The only module that calls `torch.load`: after `zip_guard` and `pickle_guard`, with
`weights_only=True`, and first without memory, so that a view of a terabyte on four bytes is found
by its shape.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, BinaryIO

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from merging.checkpoint_guards import (
    HOW_TO_SAVE,
    Limits,
    check_dense,
    check_dims,
    check_names,
    first_few,
    refuse,
    short,
)
from merging.errors import CheckpointError
from merging.params import Params
from merging.pickle_guard import check_pickle
from merging.zip_guard import read_pickle

_SAFE_DTYPES = {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"}
_KEYS = (
    "state_dict", "model_state_dict", "model_state", "model", "params", "parameters", "weights",
    "net", "network", "module", "ema_state_dict", "ema",
)  # fmt: skip


def read_safetensors(
    file: BinaryIO, size: int, name: str, limits: Limits
) -> tuple[Params, dict[str, str]]:
    """Read a safetensors file once its header is found sound.

    Args:
        file: A safetensors file, by its first bytes.
        size: Of the file, in bytes.
        name: What to call the file in messages.
        limits: The most it may hold.

    Returns:
        The tensors; and notes: the file's own, and its `format`.

    Raises:
        CheckpointError: If the file is damaged, over the limits, or holds what cannot be merged.
    """
    header = _safetensors_header(file, size, name, limits)
    meta = header.pop("__metadata__", {})
    check_names(header, name, limits)
    for key, entry in header.items():
        _check_entry(key, entry, name, limits)
    file.seek(0)
    try:
        params = safetensors.torch.load(file.read())
    except (SafetensorError, ValueError, RuntimeError, OverflowError) as error:
        raise CheckpointError(
            f"{name}: the safetensors file is damaged ({error}); copy or download it again"
        ) from error
    return params, {**meta, "format": "safetensors"}


def read_torch(
    file: BinaryIO, size: int, name: str, limits: Limits
) -> tuple[Params, dict[str, str]]:
    """Read a PyTorch zip file: its directory, its opcodes, its shapes, and only then its weights.

    Args:
        file: A zip file, by its first bytes.
        size: Of the file, in bytes.
        name: What to call the file in messages.
        limits: The most it may hold.

    Returns:
        The tensors, with memory of their own; and notes: `format`, and where they apply
        `found_under` and `ignored`.

    Raises:
        CheckpointError: If the file is damaged, over the limits, or holds anything but tensors.
    """
    check_pickle(read_pickle(file, size, name, limits), name)
    planned, meta = _state_dict(_load(file, "meta", name), name)
    check_names(planned, name, limits)
    _check_planned(planned, size, name, limits)
    found, _ = _state_dict(_load(file, "cpu", name), name)
    params = {
        key: tensor.detach().clone(memory_format=torch.contiguous_format)
        for key, tensor in found.items()
    }
    return params, meta


def _safetensors_header(file: BinaryIO, size: int, name: str, limits: Limits) -> dict[str, Any]:
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if length > size - 8:
        raise CheckpointError(
            f"{name}: the file is cut short: its header should have {length:,} bytes, and only "
            f"{size - 8:,} follow; copy or download it again"
        )
    if length > 1024 * limits.max_tensors:
        raise CheckpointError(
            f"{name}: the header has {length:,} bytes, more than {limits.max_tensors:,} tensors "
            f"need; {HOW_TO_SAVE}"
        )
    try:
        header = json.loads(file.read(length))
        if isinstance(header, dict) and isinstance(header.get("__metadata__", {}), dict):
            return header
    except (ValueError, RecursionError):
        pass
    raise CheckpointError(
        f"{name}: the header of the safetensors file is damaged; copy or download it again"
    )


def _check_entry(key: str, entry: object, name: str, limits: Limits) -> None:
    match entry:
        case {"dtype": str(dtype), "shape": list(shape)}:
            if dtype not in _SAFE_DTYPES:
                refuse(name, key, f"has dtype {dtype[:16]}; save it as float32")
            check_dims(key, len(shape), name, limits)
        case _:
            refuse(name, key, "is listed without a dtype and a shape; save it again")


def _load(file: BinaryIO, device: str, name: str) -> object:
    file.seek(0)
    try:
        return torch.load(file, map_location=device, weights_only=True)
    except Exception as error:  # what a damaged file makes of the reader is not ours to list
        reason = str(error).split("\n", maxsplit=1)[0][:200]
        raise CheckpointError(
            f"{name}: PyTorch cannot read this file as weights only "
            f"({type(error).__name__}: {reason}); {HOW_TO_SAVE}"
        ) from error


def _state_dict(loaded: object, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    meta = {"format": "pytorch"}
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
            f"{name}: holds {type(loaded).__name__}, not a dict of tensors; {HOW_TO_SAVE}"
        )
    for key, value in loaded.items():
        if not isinstance(key, str):
            raise CheckpointError(
                f"{name}: a name is {type(key).__name__}, not text; {HOW_TO_SAVE}"
            )
        if not isinstance(value, Tensor):
            refuse(name, key, f"is {type(value).__name__}, not a tensor; leave it out")
    return loaded, meta


def _inside(loaded: object) -> str | None:
    if not isinstance(loaded, dict):
        return None
    dicts = [key for key in _KEYS if isinstance(loaded.get(key), dict)]
    with_tensors = [k for k in dicts if any(isinstance(v, Tensor) for v in loaded[k].values())]
    return next(iter(with_tensors + dicts), None)


def _check_planned(planned: Mapping[str, Tensor], size: int, name: str, limits: Limits) -> None:
    total = 0
    for key, tensor in planned.items():
        check_dense(key, tensor, name)
        check_dims(key, tensor.dim(), name, limits)
        claimed = math.prod(tensor.shape) * tensor.element_size()
        there = min(tensor.untyped_storage().nbytes(), size)
        if not tensor.is_meta or claimed > there:
            refuse(
                name,
                key,
                f"claims {claimed:,} bytes, but at most {there:,} are stored (an expanded "
                "view?); save its clone()",
            )
        total += claimed
    if total > limits.max_bytes:
        raise CheckpointError(
            f"{name}: its tensors take {total:,} bytes, more than the limit of "
            f"{limits.max_bytes:,}; choose a smaller model"
        )
