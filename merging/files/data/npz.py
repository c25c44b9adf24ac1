"""Evaluation data from a user: a `.npz` file with `x` and `y`.

The file may come from a stranger: no pickle in it is ever read, and the sizes that its list of
entries and its arrays' headers declare are checked before any array takes up memory.
"""

import io
import math
import os
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from merging.files.data.arrays import few
from merging.files.zip_archive import MAX_RATIO
from merging.schema.errors import DataError

MAX_BYTES = 512 * 1024**2

_LARGEST_LABEL = 2**31
_MAX_LISTING = 1_000_000
_SHOWN = 5
_FREE = 16_000_000  # bytes that may be unpacked however well they were packed


def read_npz(
    source: str | os.PathLike[str] | bytes, name: str, *, max_bytes: int = MAX_BYTES
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Read inputs and labels, as `np.savez(path, x=inputs, y=labels)` writes them.

    Args:
        source: A path, or the whole file as bytes.
        name: What to call the file in messages; never used as a path.
        max_bytes: The most that the file, its entries, or `x` as float32 may take.

    Returns:
        `x`, float32 `[n, ...]`: images of 8-bit integers are divided by 255, so that they lie in
        [0, 1]; every other dtype keeps its values. And `y`, int64 `[n]`, none negative.

    Raises:
        DataError: If the file is missing, damaged or too large, lacks `x` or `y`, or if they do
            not hold the same number of finite examples and whole labels.

    Example:
        >>> file = io.BytesIO()
        >>> np.savez(file, x=np.full((2, 3), 255, np.uint8), y=[0, 1])
        >>> x, y = read_npz(file.getvalue(), "mine.npz")
        >>> x.tolist(), y.tolist()
        ([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]], [0, 1])
    """
    try:
        if isinstance(source, bytes):
            arrays = read_arrays(io.BytesIO(source), name, max_bytes)
        else:
            with Path(source).open("rb") as file:
                arrays = read_arrays(file, name, max_bytes)
    except OSError as error:
        raise DataError(f"{name}: the file cannot be read ({error.strerror or error})") from error
    _check_counts(arrays["x"], arrays["y"], name)
    return real_inputs(arrays["x"], name), _as_labels(arrays["y"], name)


def check_fits(
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    example_shape: tuple[int, ...],
    classes: int,
) -> NDArray[np.float32]:
    """Make sure that a model can be evaluated on the data, and give the inputs its shape.

    For a model of `[1, 28, 28]` images, `[n, 28, 28]` and `[n, 784]` are accepted as well: axes of
    length 1 may be missing, and images may be flat. Axes are never reordered.

    Args:
        x: Inputs `[n, ...]`.
        y: Labels `[n]`.
        example_shape: What the model takes, without the batch.
        classes: Number of classes that it tells apart.

    Returns:
        `x` as `[n, *example_shape]`.

    Raises:
        DataError: If a shape does not fit or a label is not in 0 … `classes` - 1.

    Example:
        >>> x, y = np.zeros((5, 784), np.float32), np.arange(5)
        >>> check_fits(x, y, (1, 28, 28), 10).shape
        (5, 1, 28, 28)
    """
    if not _same_examples(x.shape[1:], example_shape):
        raise DataError(
            f"x has shape {_shape(x.shape)}, and the model takes {_shape(('n', *example_shape))}; "
            + _cure(x.shape[1:], example_shape)
        )
    outside = y[(y < 0) | (y >= classes)]
    if outside.size:
        raise DataError(
            f"y holds {outside.size} labels outside 0 to {classes - 1}: {few(outside)}; the model "
            f"tells {classes} classes apart, numbered from 0. Renumber the labels, or leave those "
            "examples out"
        )
    return x.reshape(len(x), *example_shape)


def read_arrays(
    file: BinaryIO, name: str, max_bytes: int, keys: Sequence[str] = ("x", "y")
) -> Mapping[str, NDArray]:
    """Read arrays of real numbers from a `.npz` file, checked before they take up memory.

    Args:
        file: The file.
        name: What to call it in messages.
        max_bytes: The most that the file, its entries, or an array as float32 may take.
        keys: Names of the arrays.

    Returns:
        The arrays, in the file's dtypes.

    Raises:
        DataError: If one is missing, damaged, too large, or of anything but numbers.
        OSError: If the disk refuses.
    """
    size = file.seek(0, os.SEEK_END)
    _check_size("the file", size, name, max_bytes)
    try:
        _check_listing(file, size)
        with zipfile.ZipFile(file) as archive:
            entries = {e.filename.removesuffix(".npy"): e for e in archive.infolist()}
            missing = [repr(wanted) for wanted in keys if wanted not in entries]
            if missing:
                raise DataError(
                    f"{name}: lacks {' and '.join(missing)}; it holds {_names(entries)}. Save the "
                    "inputs as x and the labels as y: np.savez(path, x=inputs, y=labels)"
                )
            return {key: _read_array(archive, entries[key], name, max_bytes) for key in keys}
    except (DataError, OSError):
        raise
    except Exception as error:  # what a damaged file makes of the readers is not ours to list
        raise DataError(
            f"{name}: this is not a complete .npz file ({type(error).__name__}: {error}); write it "
            "with np.savez(path, x=inputs, y=labels)"
        ) from error


def _check_listing(file: BinaryIO, size: int) -> None:
    # The list of entries is bounded before `zipfile` makes an object of each.
    file.seek(max(0, size - 42))
    tail = file.read().rjust(42, b"\0")
    if tail[-22:-18] != b"PK\x05\x06":
        raise zipfile.BadZipFile("no list of entries at the end")
    (listed,) = struct.unpack("<I", tail[-10:-6])
    if listed > _MAX_LISTING or tail.startswith(b"PK\x06\x07"):
        raise zipfile.BadZipFile("too many entries")


def _read_array(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str, max_bytes: int
) -> NDArray:
    key = entry.filename.removesuffix(".npy")
    _check_size(repr(key), entry.file_size, name, max_bytes)
    if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise zipfile.BadZipFile("compressed in a way that NumPy does not use")
    if entry.file_size > _FREE and entry.file_size > MAX_RATIO * entry.compress_size:
        raise DataError(
            f"{name}: {key!r} unpacks from {entry.compress_size:,} to {entry.file_size:,} bytes, "
            "far more than real data do; save it with np.savez, not packed"
        )
    with archive.open(entry) as stream:
        _check_header(cast(BinaryIO, stream), entry, name, max_bytes)
    with archive.open(entry) as stream:
        return npy.read_array(stream, allow_pickle=False)


def _check_header(stream: BinaryIO, entry: zipfile.ZipInfo, name: str, max_bytes: int) -> None:
    key = entry.filename.removesuffix(".npy")
    version = npy.read_magic(stream)
    if version not in {(1, 0), (2, 0)}:
        raise DataError(f"{name}: {key!r} is not a plain array; save numbers, without field names")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(stream)
    if dtype.kind not in "biuf":
        raise DataError(
            f"{name}: {key!r} holds {dtype}, and numbers are needed; convert it, for example with "
            "np.asarray(values, dtype=np.float32)"
        )
    count = math.prod(shape)
    stored = entry.file_size - stream.tell()
    if min(shape, default=0) < 0 or count * dtype.itemsize != stored:
        raise DataError(
            f"{name}: {key!r} claims shape {_shape(shape)} of {dtype}, {count * dtype.itemsize:,} "
            f"bytes, and {stored:,} are stored; the file is damaged, write it again"
        )
    _check_size(f"{key!r} as float32", 4 * count, name, max_bytes)


def _check_size(what: str, size: int, name: str, max_bytes: int) -> None:
    if size > max_bytes:
        raise DataError(
            f"{name}: {what} takes {size:,} bytes, more than the limit of {max_bytes:,}; "
            "use fewer examples"
        )


def _check_counts(x: NDArray, y: NDArray, name: str) -> None:
    if x.ndim < 2:
        raise DataError(
            f"{name}: 'x' has shape {_shape(x.shape)}; expected one row per example, [n, ...]"
        )
    if y.ndim != 1:
        raise DataError(
            f"{name}: 'y' has shape {_shape(y.shape)}; expected one class number per example, [n] "
            "(for one-hot rows, save y.argmax(1))"
        )
    if len(x) != len(y):
        raise DataError(
            f"{name}: 'x' holds {len(x)} examples and 'y' {len(y)} labels; there must be one label "
            "per example"
        )
    if x.size == 0:
        raise DataError(f"{name}: 'x' has shape {_shape(x.shape)}: no data; add some examples")


def real_inputs(x: NDArray, name: str) -> NDArray[np.float32]:
    """Make float32 of inputs: images of 8-bit integers become fractions of 1.

    Args:
        x: Real numbers `[n, ...]`.
        name: What to call the file in the message.

    Returns:
        float32 of the same shape.

    Raises:
        DataError: If there is not one row per example, or any number is not finite.
    """
    if x.ndim < 2 or x.size == 0:
        raise DataError(
            f"{name}: 'x' has shape {_shape(x.shape)}: no data, or not one row per example, "
            "[n, ...]"
        )
    with np.errstate(over="ignore"):
        inputs = np.ascontiguousarray(x, dtype=np.float32)
    if x.dtype == np.uint8:
        return inputs / np.float32(255)
    wrong = ~np.isfinite(inputs).reshape(len(inputs), -1)
    if wrong.any():
        raise DataError(
            f"{name}: 'x' holds {wrong.sum()} values that are NaN, infinite or too large for "
            f"float32, in {wrong.any(1).sum()} of {len(x)} examples; leave those examples out"
        )
    return inputs


def _as_labels(y: NDArray, name: str) -> NDArray[np.int64]:
    unlike = y[~((y >= 0) & (y < _LARGEST_LABEL) & (y == np.trunc(y)))]
    if unlike.size:
        raise DataError(
            f"{name}: 'y' holds {unlike.size} values that are not class numbers: {few(unlike)}; "
            "labels must be whole numbers from 0"
        )
    return y.astype(np.int64)


def _same_examples(given: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    if math.prod(given) != math.prod(wanted):
        return False
    return len(given) == 1 or len(wanted) == 1 or _without_ones(given) == _without_ones(wanted)


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)


def _cure(given: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    if len(given) == len(wanted) == 3 and given == (*wanted[1:], wanted[0]):
        return "its channels are last: save x.transpose(0, 3, 1, 2)"
    return "save inputs of that shape (axes of length 1 may be missing, images may be flat)"


def _shape(shape: tuple[int | str, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _names(names: Mapping[str, object]) -> str:
    shown = ", ".join(f"{name[:40]!r}" for name in list(names)[:_SHOWN])
    return (shown or "nothing") + (", …" if len(names) > _SHOWN else "")
