"""One result as bytes: an `.npz` file with its meaning inside; and packs of them.

A pack is a zip file of such files. Results that ship with the app come in packs, one per pair.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from merging.schema.errors import StoreError

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"

_META = "__meta__"
_KEPT = re.compile(r"(?P<key>[0-9a-f]{64})((?P<result>\.npz)|\.file\.[a-z]+)")
# NumPy parses headers with `ast`, whose depth counter CPython 3.11 shares between threads: two at
# once now and then end in a SystemError.
_HEADERS = threading.Lock()


@dataclass(frozen=True, eq=False)
class Entry:
    """One result: named arrays, and what they mean as plain JSON values."""

    arrays: dict[str, np.ndarray]
    meta: dict[str, Any]


def read_entry(path: Path) -> Entry:
    """Read a result file.

    Args:
        path: A file that a store wrote, or one of what `encode` returns.

    Returns:
        Its arrays and their meaning.

    Raises:
        StoreError: If it cannot be read, or is no result file.
    """
    try:
        return decode(path.read_bytes(), str(path))
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error


def encode(
    arrays: Mapping[str, np.ndarray],
    meta: Mapping[str, JSON],
    compression: int = zipfile.ZIP_DEFLATED,
) -> bytes:
    """Return a result as the bytes of its file."""
    assert _META not in arrays, f"{_META!r} is taken"
    text = np.frombuffer(json.dumps(meta, allow_nan=True).encode(), dtype=np.uint8)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression, compresslevel=1) as archive:
        for name, array in {_META: text, **arrays}.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
    return buffer.getvalue()


def decode(data: bytes, where: str) -> Entry:
    """Return a result from the bytes of its file; `where` is for messages.

    Raises:
        StoreError: If the bytes are no result.
    """
    try:
        with _HEADERS, np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        meta = json.loads(arrays.pop(_META).tobytes())
    except (ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise StoreError(f"{where} is no result file, or is damaged: {error}") from error
    return Entry(arrays, meta)


@contextmanager
def beside(path: Path, source: bytes | Path, durable: bool = True) -> Iterator[Path]:
    """Write a temporary file beside a path.

    The caller moves it to its place; if it does not, the file goes away.

    Yields:
        The temporary file.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem[:12], suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            if isinstance(source, bytes):
                file.write(source)
            else:
                with source.open("rb") as original:
                    shutil.copyfileobj(original, file, 1 << 20)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


class KeptFile(NamedTuple):
    """A file that a store keeps, in the order of its index's columns.

    Attributes:
        kind: `"result"` or `"file"`.
        key: What it is kept under.
        path: Its place in the folder.
        size: Bytes.
        sha256: Of its bytes.
        used: When it was written, in seconds since the epoch.
    """

    kind: str
    key: str
    path: str
    size: int
    sha256: str
    used: float


def kept_files(folder: Path) -> Iterator[KeptFile]:
    """Find what a store keeps by the files alone.

    Args:
        folder: The store's.

    Yields:
        Every result and uploaded file whose name is one.
    """
    for path in sorted(folder.glob("??/*")):
        named = _KEPT.fullmatch(path.name)
        if named is None or path.parent.name != named["key"][:2]:
            continue
        with suppress(FileNotFoundError), path.open("rb") as file:  # room may be made meanwhile
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            stat = os.fstat(file.fileno())
            kind = "result" if named["result"] else "file"
            place = path.relative_to(folder).as_posix()
            yield KeptFile(
                kind=kind,
                key=named["key"],
                path=place,
                size=stat.st_size,
                sha256=digest,
                used=stat.st_mtime,
            )


def write_pack(path: Path, entries: Mapping[str, Entry]) -> None:
    """Write results into one file that ships with the app.

    The file depends on the results only: no times are written into it.

    Args:
        path: Where; ends in `.zip`.
        entries: The results by key.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as pack:
        for key, entry in sorted(entries.items()):
            data = encode(entry.arrays, entry.meta)
            pack.writestr(zipfile.ZipInfo(f"{key}.npz"), data)


def bundled_results(folders: Sequence[Path]) -> dict[str, Path]:
    """Return where results of some folders are: by key, the file, or the pack that holds it."""
    found = {path.stem: path for folder in folders for path in folder.glob("*.npz")}
    for folder in folders:
        for path in folder.glob("*.zip"):
            with suppress(zipfile.BadZipFile, OSError), zipfile.ZipFile(path) as pack:
                found.update((name.removesuffix(".npz"), path) for name in pack.namelist())
    return found


def read_bundled(path: Path, key: str) -> Entry:
    """Read a result from its file or its pack.

    Raises:
        StoreError: If it cannot be read, or is no result.
    """
    if path.suffix != ".zip":
        return read_entry(path)
    try:
        with zipfile.ZipFile(path) as pack:
            data = pack.read(f"{key}.npz")
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise StoreError(f"cannot read result {key[:8]} in {path}: {error}") from error
    return decode(data, f"{path}, {key[:8]}")
