"""The files of a data set, in a folder or a zip file: listed, looked at, and read under limits."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import BinaryIO, Protocol

from merging.files.zip_archive import MAX_RATIO, Archive, ArchiveError
from merging.schema.errors import DataError

MAX_FILES = 100_000
GZIP = b"\x1f\x8b"

_FREE = 16_000_000  # bytes that may be unpacked however well they were packed
_HEAD = 512


class Files(Protocol):
    """Files by name, `/` between folders."""

    def names(self) -> list[str]:
        """Return all names, hidden ones left out, sorted."""

    def head(self, name: str) -> bytes:
        """Return the first bytes of a file."""

    def read(self, name: str, max_bytes: int) -> bytes:
        """Return a whole file."""


class DiskFiles:
    """The files in a folder and in its folders.

    Args:
        path: The folder.
        called: What to call it in messages.
    """

    def __init__(self, path: Path, called: str) -> None:
        self._path, self._called = path, called
        self._names: list[str] = []
        for found in path.rglob("*"):
            if found.is_file() and not found.is_symlink():
                self._names.append(found.relative_to(path).as_posix())
            if len(self._names) > MAX_FILES:
                raise DataError(f"{called}: holds more than {MAX_FILES:,} files; use fewer")

    def names(self) -> list[str]:
        """Return all names, hidden ones left out, sorted."""
        return sorted(name for name in self._names if not _hidden(name))

    def head(self, name: str) -> bytes:
        """Return the first bytes of a file."""
        with (self._path / name).open("rb") as file:
            return file.read(_HEAD)

    def read(self, name: str, max_bytes: int) -> bytes:
        """Read a whole file.

        Raises:
            DataError: If it is larger than `max_bytes`.
        """
        with (self._path / name).open("rb") as file:
            data = file.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise DataError(
                f"{self._called}: {name[-100:]!r} has more than {max_bytes:,} bytes; use less data"
            )
        return data


class ZipFiles:
    """The files in a zip file.

    Args:
        archive: The zip file.
        called: What to call it in messages.
    """

    def __init__(self, archive: Archive, called: str) -> None:
        self._archive, self._called = archive, called

    def names(self) -> list[str]:
        """Return all names, hidden ones left out, sorted."""
        return sorted(name for name in self._archive.entries if not _hidden(name))

    def head(self, name: str) -> bytes:
        """Return the first bytes of a file.

        Raises:
            DataError: If it is damaged.
        """
        try:
            return self._archive.head(name, _HEAD)
        except ArchiveError as error:
            raise DataError(f"{self._called}: {error}; zip the files again") from error

    def read(self, name: str, max_bytes: int) -> bytes:
        """Unpack a whole file.

        Raises:
            DataError: If it is damaged, larger than `max_bytes`, or unpacks to much more than it
                takes.
        """
        try:
            return self._archive.read(name, max_bytes)
        except ArchiveError as error:
            raise DataError(f"{self._called}: {error}; zip the files again") from error


class Unpacked(io.RawIOBase):
    """What a gzip stream holds, read piece by piece and no further than a limit.

    Args:
        file: The packed stream.
        called: What to call it in messages.
        max_bytes: The most that it may unpack to.

    Example:
        >>> Unpacked(io.BytesIO(gzip.compress(b"text")), "mine.gz", 10).read()
        b'text'
    """

    def __init__(self, file: BinaryIO, called: str, max_bytes: int) -> None:
        self._file, self._called, self._max_bytes, self._at = file, called, max_bytes, 0
        self._stream = gzip.GzipFile(fileobj=file)

    def readable(self) -> bool:
        """Return True: folders and zip files have been looked at before."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Unpack the next piece.

        Raises:
            DataError: If the stream is damaged or goes over the limit.
        """
        try:
            data = self._stream.read(min(len(buffer), 1 << 20))
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(
                f"{self._called}: the packed file is damaged or cut short ({error}); download it "
                "again"
            ) from error
        self._at += len(data)
        if self._at > self._max_bytes:
            raise DataError(
                f"{self._called}: unpacks to more than {self._max_bytes:,} bytes; use less data"
            )
        if self._at > _FREE and self._at > MAX_RATIO * max(1, self._file.tell()):
            raise DataError(
                f"{self._called}: unpacks to far more than it takes, as real data do not; pack "
                "the files again"
            )
        buffer[: len(data)] = data
        return len(data)


def unpacked(data: bytes, called: str, max_bytes: int) -> bytes:
    """Return what a file holds, unpacked if it is gzip.

    Args:
        data: The file.
        called: What to call it in messages.
        max_bytes: The most that it may unpack to.

    Returns:
        Its bytes, or those that it packs.

    Raises:
        DataError: If the stream is damaged or goes over the limit.

    Example:
        >>> unpacked(gzip.compress(b"text"), "mine.gz", 10), unpacked(b"text", "mine", 10)
        (b'text', b'text')
    """
    if not data.startswith(GZIP):
        return data
    return Unpacked(io.BytesIO(data), called, max_bytes).read()


def _hidden(name: str) -> bool:
    parts = name.split("/")
    return any(p.startswith((".", "__MACOSX")) for p in parts) or parts[-1] in _LITTER


_LITTER = {"Thumbs.db", "desktop.ini"}
