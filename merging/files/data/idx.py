"""Images and labels in the idx format of MNIST and its kin, plain or packed with gzip."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from merging.files.data.arrays import ExampleArrays, fitting
from merging.schema.errors import DataError

_DTYPES = {8: ">u1", 9: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_AXES = 4


def is_idx(head: bytes) -> bool:
    """Return whether a file begins as idx files do.

    Example:
        >>> is_idx(bytes([0, 0, 8, 1, 0, 0, 0, 5]))
        True
    """
    return (
        head[:2] == b"\0\0" and len(head) > 4 and head[2] in _DTYPES and 1 <= head[3] <= _MAX_AXES
    )


def parse_idx(data: bytes, called: str) -> NDArray:
    """Read one array.

    Args:
        data: The whole file.
        called: What to call it in the message.

    Returns:
        The array, in the file's dtype.

    Raises:
        DataError: If the sizes that it states are not those that it has.

    Example:
        >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]), "labels").tolist()
        [7, 9]
    """
    axes = data[3]
    start = 4 + 4 * axes
    if len(data) < start:
        raise DataError(f"{called}: the idx file is cut short; download it again")
    shape = struct.unpack(f">{axes}I", data[4:start])
    dtype = np.dtype(_DTYPES[data[2]])
    wanted = math.prod(shape) * dtype.itemsize
    if wanted != len(data) - start:
        raise DataError(
            f"{called}: the idx file states shape {list(shape)}, {wanted:,} bytes, and "
            f"{len(data) - start:,} follow; download it again"
        )
    return np.frombuffer(data, dtype, offset=start).reshape(shape)


def pair_up(arrays: Mapping[str, NDArray], name: str, max_bytes: int) -> ExampleArrays:
    """Put images and labels together: one pair, or a training and a test pair.

    Args:
        arrays: File name → array; names tell which belong together, and which are for training.
        name: What to call them all in messages.
        max_bytes: What the images may take as float32.

    Returns:
        The examples, those for training first.

    Raises:
        DataError: If labels or images are missing, or do not belong together.
    """
    images = {k: a for k, a in arrays.items() if a.ndim >= 2}
    labels = {k: a for k, a in arrays.items() if a.ndim == 1}
    if not images or len(images) != len(labels) or len(images) > 2:
        raise DataError(
            f"{name}: {len(images)} idx files hold images and {len(labels)} hold labels; expected "
            "one of each, or two of each for training and test, all in one zip file"
        )
    pairs = [(k, a, labels[_partner(k, a, labels, name)]) for k, a in images.items()]
    pairs.sort(key=lambda pair: ("train" not in pair[0].lower(), -len(pair[1])))
    if len({pair[1].shape[1:] for pair in pairs}) != 1:
        raise DataError(
            f"{name}: the images of the two parts have different sizes; give them one size"
        )
    return _joined(pairs, name, max_bytes)


def _partner(key: str, images: NDArray, labels: Mapping[str, NDArray], name: str) -> str:
    same = [k for k, a in labels.items() if len(a) == len(images)]
    stem = re.split(r"[-_.]?(images|labels)", key)[0]
    named = [k for k in same if re.split(r"[-_.]?(images|labels)", k)[0] == stem]
    if len(named) == 1 or len(same) == 1:
        return (named or same)[0]
    counts = ", ".join(str(len(a)) for a in labels.values())
    raise DataError(
        f"{name}: {key[-60:]!r} holds {len(images)} images, and the labels are {counts}; there "
        "must be one label per image"
    )


def _joined(pairs: list[tuple[str, NDArray, NDArray]], name: str, max_bytes: int) -> ExampleArrays:
    first = len(pairs[0][1]) if len(pairs) == 2 else 0
    n = sum(len(images) for _, images, _ in pairs)
    if n == 0 or pairs[0][1].size == 0:
        raise DataError(f"{name}: the idx files hold no images; add some")
    keep = fitting(n, first, 4 * math.prod(pairs[0][1].shape[1:]), max_bytes)
    kept = list(zip(pairs, keep[2 - len(pairs) :], strict=True))
    x = np.concatenate([_floats(images[part]) for (_, images, _), part in kept])
    y = np.concatenate([labels[part] for (_, _, labels), part in kept])
    if (y < 0).any() or (y != np.trunc(y)).any():
        raise DataError(f"{name}: the labels are not whole numbers from 0; renumber them")
    if x.ndim == 3:
        x = x[:, None]
    if not np.isfinite(x).all():
        raise DataError(f"{name}: the images hold NaN or infinity; leave those out")
    notes = [f"{len(x):,} examples of idx files."]
    if len(x) < n:
        notes.append(f"Of {n:,} examples, {len(x):,} fit into {max_bytes:,} bytes and were kept.")
    split = len(kept[0][0][1][kept[0][1]]) if len(pairs) == 2 else None
    y = y.astype(np.int64)
    return ExampleArrays(
        x=x,
        y=y,
        kind="classification",
        classes=int(y.max()) + 1,
        class_names=(),
        notes=tuple(notes),
        split=split,
    )


def _floats(images: NDArray) -> NDArray[np.float32]:
    scale = np.float32(1 / 255) if images.dtype.itemsize == 1 else np.float32(1)
    with np.errstate(over="ignore"):
        return images.astype(np.float32) * scale
