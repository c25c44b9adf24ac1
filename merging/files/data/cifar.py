"""CIFAR-10 and CIFAR-100 as their authors publish them: pickled batches, alone or in a tar archive.

A batch is a pickle, and unpickling a stranger's file runs what is in it. Here its opcodes are
followed as data (`pickle_values`): arrays of bytes, lists of labels and names come out, and
anything else is refused.
"""

from __future__ import annotations

import math
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from merging.files.data.arrays import ExampleArrays, check_names, fitting
from merging.files.pickle_values import Call, PickleRefusedError, Stateful, inert, plain_values
from merging.schema.errors import DataError

MAX_BATCH = 200_000_000

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE
_MAX_MEMBERS = 1000
_LABELS = ("labels", "fine_labels")
_NAMES = ("label_names", "fine_label_names")
_NUMBERS = {"u1", "i1", "i4", "i8", "|u1", "|i1", "<i4", "<i8"}


@dataclass(frozen=True, eq=False)
class Batch:
    """One file of the data set.

    Attributes:
        images: uint8 `[n, 3072]`.
        labels: int64 `[n]`.
        test: Whether it is for testing.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    test: bool


def read_batch(pickled: bytes, called: str) -> Batch | tuple[str, ...]:
    """Read one file of the data set, without running anything in it.

    Args:
        pickled: The file.
        called: What to call it in messages.

    Returns:
        The images and labels; or the names of the classes, if the file holds these.

    Raises:
        DataError: If it holds anything else, or is damaged.
    """
    try:
        return _batch_or_names(plain_values(pickled, _call_of), called)
    except PickleRefusedError as error:
        raise DataError(
            f"{called}: this is a pickle, and not a batch of CIFAR as published: {error}. Pickles "
            "can run code, so no others are read; save arrays with np.savez(path, x=…, y=…)"
        ) from error


def read_tar(stream: BinaryIO, name: str) -> Iterator[tuple[str, bytes]]:
    """Read the pickles in a tar archive, one after another and nothing to disk.

    Args:
        stream: The archive, unpacked; read once from front to back.
        name: What to call it in messages.

    Yields:
        Names and contents of the files that are pickles.

    Raises:
        DataError: If the archive is damaged, or holds too many or too large files.
    """
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for count, member in enumerate(archive):
                if count >= _MAX_MEMBERS:
                    raise DataError(f"{name}: holds more than {_MAX_MEMBERS} files")
                if not member.isreg():
                    continue
                if member.size > MAX_BATCH:
                    raise DataError(
                        f"{name}: a file in it has {member.size:,} bytes, more than a batch has"
                    )
                file = archive.extractfile(member)
                data = file.read() if file else b""
                if len(data) != member.size:
                    raise DataError(f"{name}: the archive is cut short; download it again")
                if data[:1] == b"\x80":
                    yield member.name[-200:], data
    except DataError:
        raise
    except Exception as error:  # what damage makes of the reader is not ours to list
        raise DataError(
            f"{name}: the tar archive is damaged ({str(error)[:100]}); download it again"
        ) from error


def join_batches(files: Iterable[tuple[str, bytes]], name: str, max_bytes: int) -> ExampleArrays:
    """Put the files of the data set together, training batches first.

    Args:
        files: Names and contents.
        name: What to call them all in messages.
        max_bytes: What the images may take as float32.

    Returns:
        The examples. If not all fit, all for testing and the first for training are kept.

    Raises:
        DataError: If there are no batches among them, or one is not as published.
    """
    batches: list[tuple[str, Batch]] = []
    names: tuple[str, ...] = ()
    for file, data in files:
        found = read_batch(data, name if file == name else f"{name}: {file.split('/')[-1][:80]}")
        if isinstance(found, Batch):
            batches.append((file, found))
        else:
            names = found
    if not batches:
        raise DataError(f"{name}: holds no batches of CIFAR (files with data and labels)")
    batches.sort(key=lambda pair: (pair[1].test, pair[0]))
    return _joined([batch for _, batch in batches], names, max_bytes)


def _joined(batches: list[Batch], names: tuple[str, ...], max_bytes: int) -> ExampleArrays:
    n = sum(len(batch.labels) for batch in batches)
    train = sum(len(batch.labels) for batch in batches if not batch.test)
    parts = fitting(n, train, 4 * _PIXELS, max_bytes)
    images = [
        np.concatenate([b.images for b in batches if b.test is test] or [_NONE])[part]
        for test, part in zip((False, True), parts, strict=True)
    ]
    none = np.zeros(0, np.int64)
    labels = [
        np.concatenate([b.labels for b in batches if b.test is test] or [none])[part]
        for test, part in zip((False, True), parts, strict=True)
    ]
    x = np.concatenate(images).astype(np.float32)
    x /= 255
    y = np.concatenate(labels).astype(np.int64)
    notes = [f"{len(y):,} images of CIFAR, {_SIDE} × {_SIDE}, colours first."]
    if len(y) < n:
        notes.append(f"Of {n:,} images, {len(y):,} fit into {max_bytes:,} bytes and were kept.")
    both = 0 < len(labels[0]) < len(y)
    classes = max(int(y.max()) + 1, len(names))
    return ExampleArrays(
        x=x.reshape(-1, 3, _SIDE, _SIDE),
        y=y,
        kind="classification",
        classes=classes,
        class_names=names,
        notes=tuple(notes),
        split=len(labels[0]) if both else None,
    )


_NONE = np.zeros((0, _PIXELS), np.uint8)


def _batch_or_names(found: object, called: str) -> Batch | tuple[str, ...]:
    if not isinstance(found, dict):
        raise PickleRefusedError("it is not a dict of a batch")
    plain = {_text(key): value for key, value in found.items()}
    names = next((plain[key] for key in _NAMES if key in plain), None)
    if isinstance(names, list) and "data" not in plain:
        return check_names([_text(name) for name in names])
    labels = next((plain[key] for key in _LABELS if key in plain), None)
    return _batch(plain.get("data"), labels, _text(plain.get("batch_label")), called)


def _batch(data: object, labels: object, title: str, called: str) -> Batch:
    if not isinstance(data, _Array):
        raise PickleRefusedError("it has no array 'data'")
    images = data.numbers()
    if images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != _PIXELS:
        raise PickleRefusedError(
            f"'data' is {list(images.shape)[:8]} of {images.dtype}, where [n, {_PIXELS}] of uint8 "
            "was expected"
        )
    plain = labels.numbers().tolist() if isinstance(labels, _Array) else labels
    if not isinstance(plain, list) or not all(type(k) is int and 0 <= k < 1000 for k in plain):
        raise PickleRefusedError("it has no list 'labels' of class numbers")
    if len(plain) != len(images) or not plain:
        raise PickleRefusedError(f"it has {len(images)} images and {len(plain)} labels")
    return Batch(images, np.array(plain, np.int64), "test" in (title or called).lower())


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value[:200].decode("latin-1")
    return value[:200] if isinstance(value, str) else ""


@dataclass
class _Dtype(Stateful):
    code: str

    def number(self) -> np.dtype:
        order = self.state[1] if isinstance(self.state, tuple) and len(self.state) > 1 else "|"
        if _text(order) not in {"|", "<"}:
            raise PickleRefusedError("an array has an unusual byte order")
        return np.dtype(self.code)


@dataclass
class _Array(Stateful):
    def numbers(self) -> NDArray:
        match self.state:
            case (_, tuple(shape), _Dtype() as dtype, fortran, bytes(raw)):
                number = dtype.number()
                sizes = all(type(n) is int and 0 <= n < 1 << 40 for n in shape)
                if sizes and len(shape) <= 4 and math.prod(shape) * number.itemsize == len(raw):
                    order: Any = "F" if fortran else "C"
                    return np.frombuffer(raw, number).reshape(shape, order=order)
        raise PickleRefusedError("an array does not have the size that it states")


def _new_array(arguments: tuple[object, ...]) -> _Array:
    if len(arguments) != 3 or getattr(arguments[0], "name", "") != "numpy.ndarray":
        raise PickleRefusedError("it makes an array with unusual arguments")
    return _Array()


def _array_of_buffer(arguments: tuple[object, ...]) -> _Array:
    match arguments:
        case (bytes(raw), dtype, tuple(shape), str(order)) if order in {"C", "F"}:
            array = _Array()
            array.state = (1, shape, dtype, order == "F", raw)
            return array
    raise PickleRefusedError("it makes an array with unusual arguments")


def _new_dtype(arguments: tuple[object, ...]) -> _Dtype:
    code = _text(arguments[0]) if arguments else ""
    if code not in _NUMBERS:
        raise PickleRefusedError("an array holds something other than small whole numbers")
    return _Dtype(code)


def _encoded(arguments: tuple[object, ...]) -> bytes:
    match arguments:
        case (str(text), "latin1" | "latin-1" | b"latin1"):
            return text.encode("latin-1")
    raise PickleRefusedError("it encodes text in an unusual way")


_CALLS: MappingProxyType[str, Call] = MappingProxyType({
    "numpy.core.multiarray._reconstruct": _new_array,
    "numpy._core.multiarray._reconstruct": _new_array,
    "numpy.core.numeric._frombuffer": _array_of_buffer,
    "numpy._core.numeric._frombuffer": _array_of_buffer,
    "numpy.ndarray": inert("numpy.ndarray"),
    "numpy.dtype": _new_dtype,
    "_codecs.encode": _encoded,
})


def _call_of(full: str, near: str) -> Call:  # noqa: ARG001
    if full not in _CALLS:
        raise PickleRefusedError(f"it names {full[:80]!r}, which could run code")
    return _CALLS[full]
