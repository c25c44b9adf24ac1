"""Data of any kind that a person gives, told apart by their bytes."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import BinaryIO

from merging.files.data.arrays import MAX_BYTES, ExampleArrays, TaskKind, with_targets
from merging.files.data.cifar import MAX_BATCH, join_batches, read_tar
from merging.files.data.collection import (
    GZIP,
    MAX_FILES,
    DiskFiles,
    Files,
    Unpacked,
    ZipFiles,
    unpacked,
)
from merging.files.data.idx import is_idx, pair_up, parse_idx
from merging.files.data.images import is_image, read_images
from merging.files.data.npz import read_arrays, real_inputs
from merging.files.data.tables import read_table
from merging.files.data.tokens import WINDOW, next_tokens
from merging.files.zip_archive import Archive, ArchiveError
from merging.schema.errors import DataError

_LOOKED_AT = 50  # files of a collection whose first bytes tell what it is
_MAX_IDX = 8
_MAX_BATCHES = 20


def read_data(
    source: bytes | str | os.PathLike[str],
    name: str,
    *,
    kind: TaskKind | None = None,
    window: int = WINDOW,
    image_size: tuple[int, int] | None = None,
    max_bytes: int = MAX_BYTES,
) -> ExampleArrays:
    r"""Read examples, whatever they come in; the kind is found from the bytes, never from a name.

    Known are: `.npz` with `x` and `y` (class numbers, or floats to predict) or with `tokens`;
    images in one folder per class; CIFAR-10 and CIFAR-100 as published for Python, the archive or
    single batches; MNIST's idx files; tables as CSV. Several files come as a folder or a zip file.

    Args:
        source: A path on this machine, a folder included, or a whole file as bytes.
        name: What to call it in messages; never used as a path.
        kind: What the targets are, where it is known; found from their values otherwise.
        window: Tokens that a piece of one long text holds.
        image_size: Height and width to resize images to; without it, all must have one size.
        max_bytes: The most that the file may have, and the inputs as float32.

    Returns:
        The examples.

    Raises:
        DataError: If the file is missing, damaged, too large, of an unknown kind, could run code,
            or does not hold what its kind should.

    Example:
        >>> found = read_data(b"1,2,0\n3,4,1\n", "mine.csv")
        >>> found.x.tolist(), found.y.tolist(), found.kind
        ([[1.0, 2.0], [3.0, 4.0]], [0, 1], 'classification')
    """
    reader = _Reader(name, kind, window, image_size, max_bytes)
    try:
        if isinstance(source, bytes):
            return reader.file(io.BytesIO(source))
        path = Path(source)
        if path.is_dir():
            return reader.collection(DiskFiles(path, name))
        if not path.is_file():
            raise DataError(f"{name}: there is no such file or folder; check the path")
        with path.open("rb") as file:
            return reader.file(file)
    except OSError as error:
        raise DataError(f"{name}: the file cannot be read ({error.strerror or error})") from error


class _Reader:
    def __init__(
        self,
        name: str,
        kind: TaskKind | None,
        window: int,
        image_size: tuple[int, int] | None,
        max_bytes: int,
    ) -> None:
        self.name, self.kind, self.window = name, kind, window
        self.image_size, self.max_bytes = image_size, max_bytes

    def file(self, file: BinaryIO) -> ExampleArrays:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        if size > self.max_bytes:
            raise DataError(
                f"{self.name}: the file takes {size:,} bytes, more than the limit of "
                f"{self.max_bytes:,}; use fewer examples"
            )
        head = file.read(512)
        file.seek(0)
        if head.startswith(b"PK\x03\x04"):
            return self._zip(file)
        if head.startswith(GZIP):
            return self._packed(file)
        if _is_tar(head):
            return self._tar(file)
        return self._plain(file.read(), head)

    def collection(self, files: Files) -> ExampleArrays:
        names = files.names()
        if not names:
            raise DataError(f"{self.name}: holds no files; add the data")
        kinds = {name: self._kind(files, name) for name in names[:_LOOKED_AT]}
        if "image" in kinds.values():
            return read_images(files, self.name, self.max_bytes, self.image_size)
        if "pickle" in kinds.values():
            return self._batches(files, [n for n in names if self._kind(files, n) == "pickle"])
        if "idx" in kinds.values():
            return self._idx(files, [n for n in names if self._kind(files, n) == "idx"])
        if len(names) == 1 and kinds[names[0]] == "text":
            return self._plain(files.read(names[0], self.max_bytes), files.head(names[0]))
        raise DataError(
            f"{self.name}: holds {len(names):,} files such as {names[0][-60:]!r}, which are no "
            "data that are known; expected images in one folder per class, idx files (MNIST), "
            "batches of CIFAR, one table, or the arrays of np.savez"
        )

    def _zip(self, file: BinaryIO) -> ExampleArrays:
        try:
            archive = Archive(file, max_entries=MAX_FILES, max_bytes=4 * self.max_bytes)
        except ArchiveError as error:
            raise DataError(
                f"{self.name}: {error}; this is not a complete .npz or zip file, write it again"
            ) from error
        if any(entry.endswith(".npy") and "/" not in entry for entry in archive.entries):
            return self._npz(file, {e.removesuffix(".npy") for e in archive.entries})
        return self.collection(ZipFiles(archive, self.name))

    def _npz(self, file: BinaryIO, keys: set[str]) -> ExampleArrays:
        if "tokens" in keys and "x" not in keys:
            arrays = read_arrays(file, self.name, self.max_bytes, ("tokens",))
            return next_tokens(arrays["tokens"], self.name, self.window)
        arrays = read_arrays(file, self.name, self.max_bytes, ("x", "y"))
        x = real_inputs(arrays["x"], self.name)
        return with_targets(x, arrays["y"], self.name, self.kind)

    def _packed(self, file: BinaryIO) -> ExampleArrays:
        head = _packed_head(file, self.name)
        stream = io.BufferedReader(Unpacked(file, self.name, 2 * self.max_bytes), 1 << 16)
        if _is_tar(head):
            return self._tar(stream)
        if head.startswith((GZIP, b"PK\x03\x04")):
            raise DataError(f"{self.name}: is packed twice; unpack it once")
        return self._plain(stream.read(), head)

    def _tar(self, stream: BinaryIO) -> ExampleArrays:
        return join_batches(read_tar(stream, self.name), self.name, self.max_bytes)

    def _plain(self, data: bytes, head: bytes) -> ExampleArrays:
        if not data:
            raise DataError(f"{self.name}: the file is empty; save the data again")
        if is_idx(head):
            parse_idx(data, self.name)
            raise DataError(
                f"{self.name}: this is one idx file, and images and labels are needed; put both "
                "into one zip file"
            )
        if head[:1] == b"\x80":
            return join_batches([(self.name, data)], self.name, self.max_bytes)
        if is_image(head):
            raise DataError(
                f"{self.name}: this is one image; give a zip file of images in one folder per class"
            )
        if head.startswith(b"\x93NUMPY"):
            raise DataError(
                f"{self.name}: this is one array, and inputs with labels are needed; save both "
                "with np.savez(path, x=inputs, y=labels)"
            )
        return read_table(data, self.name, self.max_bytes, self.kind)

    def _batches(self, files: Files, names: list[str]) -> ExampleArrays:
        if len(names) > _MAX_BATCHES:
            raise DataError(f"{self.name}: holds {len(names):,} pickles; CIFAR has at most 7")
        pairs = ((name, files.read(name, MAX_BATCH)) for name in names)
        return join_batches(pairs, self.name, self.max_bytes)

    def _idx(self, files: Files, names: list[str]) -> ExampleArrays:
        if len(names) > _MAX_IDX:
            raise DataError(f"{self.name}: holds {len(names):,} idx files; expected 2 or 4")
        arrays = {}
        for name in names:
            called = f"{self.name}: {name[-60:]}"
            data = unpacked(files.read(name, self.max_bytes), called, self.max_bytes)
            arrays[name] = parse_idx(data, called)
        return pair_up(arrays, self.name, self.max_bytes)

    def _kind(self, files: Files, name: str) -> str:
        head = files.head(name)
        if head.startswith(GZIP):
            head = _inside(head)
        if is_image(head):
            return "image"
        if is_idx(head):
            return "idx"
        if head[:1] == b"\x80":
            return "pickle"
        return "text" if head and b"\0" not in head else "other"


def _packed_head(file: BinaryIO, name: str) -> bytes:
    # The file is rewound.
    with io.BufferedReader(Unpacked(file, name, MAX_BYTES), 1024) as stream:
        head = stream.read(512)
    file.seek(0)
    return head


def _inside(packed: bytes) -> bytes:
    try:
        with io.BufferedReader(Unpacked(io.BytesIO(packed), "", MAX_BYTES), 64) as stream:
            return stream.read(8)
    except DataError:
        return b""


def _is_tar(head: bytes) -> bool:
    return head[257:262] == b"ustar"
