"""What a checkpoint must pass whatever its kind: limits, names, axes, dtypes; and the words for it.

Every refusal is a `CheckpointError` that begins with the file as the user knows it, goes on with
the tensor where there is one, and ends with what to do. What only one kind of file must pass is
beside this: `zip_guard` and `pickle_guard` for PyTorch's, `checkpoint_formats` for the headers of
safetensors, `checkpoint_shards` for the lists of shards.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor

from merging.schema.errors import CheckpointError


@dataclass(frozen=True)
class Limits:
    """The most that a checkpoint may hold.

    Attributes:
        max_bytes: Size of the file, or of all its shards, and of its weights in memory, in bytes.
        max_tensors: Number of tensors.
        max_name: Length of a tensor's name, in characters.
        max_dims: Number of axes of a tensor.
    """

    max_bytes: int = 2_000_000_000
    max_tensors: int = 20_000
    max_name: int = 512
    max_dims: int = 8


DEFAULT_LIMITS = Limits()
HOW_TO_SAVE = "save it with torch.save(model.state_dict(), path) or as safetensors"

_DTYPES = {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool}
_DTYPES |= {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8}
_SHOWN = 5


def check_size(size: int, name: str, limits: Limits) -> None:
    """Make sure that a file is neither empty nor too large.

    Args:
        size: Of the file, in bytes.
        name: What to call the file in the message.
        limits: The most it may hold.

    Raises:
        CheckpointError: If it is.
    """
    if size == 0:
        raise CheckpointError(f"{name}: the file is empty; save the checkpoint again")
    if size > limits.max_bytes:
        raise CheckpointError(
            f"{name}: the file has {size:,} bytes, more than the limit of {limits.max_bytes:,}; "
            "save the weights alone, without the optimizer's state"
        )


def check_names(names: Iterable[str], name: str, limits: Limits) -> None:
    """Make sure that there are tensors, not too many, with names that are not too long.

    Args:
        names: Of the tensors.
        name: What to call the file in the message.
        limits: The most it may hold.

    Raises:
        CheckpointError: If there are none, too many, or one with too long a name.
    """
    names = list(names)
    if not names:
        raise CheckpointError(f"{name}: holds no tensors; {HOW_TO_SAVE}")
    if len(names) > limits.max_tensors:
        raise CheckpointError(
            f"{name}: holds {len(names):,} tensors, more than the limit of {limits.max_tensors:,}"
        )
    for key in names:
        if len(key) > limits.max_name:
            refuse(name, key, f"has a name of {len(key):,} characters (limit {limits.max_name})")


def check_dims(key: str, dims: int, name: str, limits: Limits) -> None:
    """Make sure that a tensor has not too many axes.

    Args:
        key: Its name.
        dims: How many it has.
        name: What to call the file in the message.
        limits: The most it may have.

    Raises:
        CheckpointError: If it has.
    """
    if dims > limits.max_dims:
        refuse(name, key, f"has {dims} axes (limit {limits.max_dims})")


def check_dense(key: str, tensor: Tensor, name: str) -> None:
    """Make sure that a tensor is dense and has a dtype that models have.

    Args:
        key: Its name.
        tensor: On any device, the one without memory included.
        name: What to call the file in the message.

    Raises:
        CheckpointError: If it is sparse or quantised, or has a dtype that cannot be merged.
    """
    if tensor.is_quantized or tensor.layout != torch.strided:
        refuse(name, key, "is sparse or quantised; save it as a dense float tensor")
    check_dtype(key, tensor.dtype, name)


def check_dtype(key: str, dtype: torch.dtype, name: str) -> None:
    """Make sure that a tensor has a dtype that models have.

    Args:
        key: Its name.
        dtype: Its dtype.
        name: What to call the file in the message.

    Raises:
        CheckpointError: If it cannot be merged.
    """
    if dtype not in _DTYPES:
        refuse(name, key, f"has dtype {dtype}; {how_to_convert(dtype.is_complex)}")


def how_to_convert(is_complex: bool) -> str:
    """Return what to do with a dtype that is not read; nothing of a complex number may be lost.

    Example:
        >>> how_to_convert(False)
        'save it as float32'
    """
    if is_complex:
        return (
            "save torch.view_as_real of it, which keeps both parts as real numbers, and let the "
            "model put them together with torch.view_as_complex"
        )
    return "save it as float32"


def unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict of a JSON object; a key that is there twice is an error, not overwritten.

    Args:
        pairs: As `json.loads` hands them to its `object_pairs_hook`.

    Returns:
        The dict.

    Raises:
        ValueError: If two have one key.

    Example:
        >>> unique_keys([("a", 1)])
        {'a': 1}
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key in counts if counts[key] > 1)
        raise ValueError(f"{short(twice)} is listed twice")
    return found


def refuse(name: str, key: str, why: str) -> NoReturn:
    """Refuse a file for one of its tensors.

    Args:
        name: What to call the file.
        key: The tensor's name.
        why: What is wrong with it, and what to do.

    Raises:
        CheckpointError: Always.
    """
    raise CheckpointError(f"{name}: tensor {short(key)} {why}")


def short(text: str) -> str:
    """Quote a name out of a file, cut so that it fits into a message."""
    return repr(text if len(text) <= 80 else text[:77] + "...")


def first_few(items: Sequence[str]) -> str:
    """Return the first five items, and how many more there are.

    Example:
        >>> first_few(["a", "b", "c", "d", "e", "f"])
        'a, b, c, d, e and 1 more'
    """
    rest = len(items) - _SHOWN
    return ", ".join(items[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
