"""Zip files from strangers: their list of entries checked first, their contents read under limits.

Nothing is ever unpacked to disk, and a name in an archive is never a path; names that only make
sense as paths to somewhere else are refused all the same. Entries may not overlap, may not share
a name, and may not unpack to much more than they take.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import BinaryIO

MAX_RATIO = 100

_FREE = 16_000_000  # bytes that may be unpacked however well they were packed
_SHOWN = 60
_ENTRY = 512  # bytes in the list of entries, name included


class ArchiveError(ValueError):
    """What is wrong with a zip file; the message is a clause, without the file's name."""


class Archive:
    """The entries of a zip file, checked.

    Args:
        file: The file; it must stay open.
        max_entries: How many entries it may have.
        max_bytes: How many bytes they may unpack to, together.

    Attributes:
        entries: Name → entry, folders left out, in the order of the file.
        folders: Names of the entries that are folders.

    Raises:
        ArchiveError: If the list of entries is damaged, or not that of an honest file.

    Example:
        >>> data = io.BytesIO()
        >>> with zipfile.ZipFile(data, "w") as new:
        ...     new.writestr("a/b.txt", "text")
        >>> Archive(data, max_entries=10, max_bytes=1000).read("a/b.txt")
        b'text'
    """

    def __init__(self, file: BinaryIO, *, max_entries: int, max_bytes: int) -> None:
        self._file = file
        self._size = file.seek(0, os.SEEK_END)
        try:
            _check_listing(file, self._size, max_entries)
            self._zip = zipfile.ZipFile(file)
        except _DAMAGE as error:
            raise _damaged(error) from error
        listed = self._zip.infolist()
        _check_entries(listed, self._size, max_bytes)
        files = {entry.filename: entry for entry in listed if not entry.is_dir()}
        self.entries: Mapping[str, zipfile.ZipInfo] = MappingProxyType(files)
        self.folders = [entry.filename for entry in listed if entry.is_dir()]

    def size(self, name: str) -> int:
        """Return the size of an entry in bytes, unpacked."""
        return self.entries[name].file_size

    def packed(self) -> bool:
        """Return whether any entry is compressed."""
        return any(e.compress_type != zipfile.ZIP_STORED for e in self.entries.values())

    def head(self, name: str, n: int = 512) -> bytes:
        """Return the first bytes of an entry.

        Raises:
            ArchiveError: If the entry is damaged.
        """
        return self._read(name, min(n, self.size(name)))

    def read(self, name: str, max_bytes: int | None = None) -> bytes:
        """Unpack an entry.

        Args:
            name: Of the entry.
            max_bytes: The most that it may unpack to, where less is expected than the archive
                may hold.

        Returns:
            All of its bytes.

        Raises:
            ArchiveError: If it is too large, damaged, or unpacks to much more than it takes.
        """
        entry = self.entries[name]
        if max_bytes is not None and entry.file_size > max_bytes:
            raise ArchiveError(
                f"its entry {shown(name)} takes {entry.file_size:,} bytes, more than the limit "
                f"of {max_bytes:,}"
            )
        if entry.file_size > _FREE and entry.file_size > MAX_RATIO * entry.compress_size:
            raise ArchiveError(
                f"its entry {shown(name)} unpacks from {entry.compress_size:,} to "
                f"{entry.file_size:,} bytes, far more than real data do"
            )
        return self._read(name, None)

    def open(self, name: str) -> BinaryIO:
        """Open an entry for reading anywhere in it; one that is not packed is read in place.

        Raises:
            ArchiveError: As `read` does, for an entry that is packed.
        """
        if self.entries[name].compress_type == zipfile.ZIP_STORED:
            start = self.place(name)
            return io.BufferedReader(_Window(self._file, start, self.size(name)))
        return io.BytesIO(self.read(name))

    def place(self, name: str) -> int:
        """Return where in the file the bytes of an entry start that is not packed.

        Raises:
            ArchiveError: If the entry does not lie where the list says.
        """
        entry = self.entries[name]
        self._file.seek(entry.header_offset)
        head = self._file.read(30)
        if head[:4] != b"PK\x03\x04" or len(head) < 30:
            raise ArchiveError(f"its entry {shown(name)} is not where the list of entries says")
        start = entry.header_offset + 30 + sum(struct.unpack("<HH", head[26:30]))
        if start + entry.file_size > self._size:
            raise ArchiveError(f"its entry {shown(name)} is cut short")
        return start

    def _read(self, name: str, n: int | None) -> bytes:
        try:
            with self._zip.open(self.entries[name]) as stream:
                data = stream.read() if n is None else stream.read(n)
        except _DAMAGE as error:
            raise _damaged(error) from error
        if n is None and len(data) != self.size(name):
            raise ArchiveError(f"its entry {shown(name)} is cut short")
        return data


class _Window(io.RawIOBase):
    """A part of a file, as a file."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        n = max(0, min(len(buffer), self._size - self._at))
        self._file.seek(self._start + self._at)
        data = self._file.read(n)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def shown(name: str) -> str:
    """Quote a name out of an archive, cut so that it fits into a message."""
    return repr(name if len(name) <= _SHOWN else name[: _SHOWN - 3] + "...")


_DAMAGE = (
    zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, ValueError, EOFError,
    struct.error, OverflowError, UnicodeDecodeError, MemoryError, KeyError, IndexError,
)  # fmt: skip


def _damaged(error: Exception) -> ArchiveError:
    if isinstance(error, ArchiveError):
        return error
    return ArchiveError(f"the zip file is damaged or cut short ({str(error)[:200]})")


def _check_listing(file: BinaryIO, size: int, max_entries: int) -> None:
    # The list of entries is bounded before `zipfile` makes an object of each.
    file.seek(max(0, size - 98))
    tail = file.read().rjust(98, b"\0")
    if tail[-22:-18] != b"PK\x05\x06":
        raise zipfile.BadZipFile("its list of entries is not at the end")
    (listed,) = struct.unpack("<I", tail[-10:-6])
    if tail[-42:-38] == b"PK\x06\x07":
        (listed,) = struct.unpack("<Q", tail[-58:-50])
    if listed > _ENTRY * max_entries:
        raise ArchiveError(f"the zip file lists too many entries ({listed:,} bytes of names)")
    file.seek(max(0, size - 98 - listed))
    count = file.read().count(b"PK\x01\x02")
    if count > max_entries:
        raise ArchiveError(
            f"the zip file lists too many entries ({count:,}, limit {max_entries:,})"
        )


def _check_entries(entries: list[zipfile.ZipInfo], size: int, max_bytes: int) -> None:
    total = sum(entry.file_size for entry in entries)
    if total > max_bytes:
        raise ArchiveError(
            f"the zip file holds {total:,} bytes, more than the limit of {max_bytes:,}"
        )
    if len({entry.filename for entry in entries}) != len(entries):
        raise _contradiction("two entries have one name")
    end = 0
    for entry in sorted(entries, key=lambda e: e.header_offset):
        _check_entry(entry)
        if entry.header_offset < end:
            raise ArchiveError("entries of the zip file overlap")
        end = entry.header_offset + 30 + entry.compress_size
    if end > size:
        raise _contradiction("an entry does not have the size that is listed")


def _check_entry(entry: zipfile.ZipInfo) -> None:
    name = entry.filename
    if not name:
        raise _contradiction("an entry has no name")
    if name.startswith("/") or "\\" in name or ".." in name.split("/") or name[1:3] == ":/":
        raise ArchiveError(f"its entry {shown(name)} is named like a path to somewhere else")
    if entry.flag_bits & 1:
        raise ArchiveError(f"its entry {shown(name)} is encrypted")
    if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise ArchiveError(f"its entry {shown(name)} is compressed in an unusual way")
    stored = entry.compress_type == zipfile.ZIP_STORED
    if stored and entry.file_size != entry.compress_size:
        raise _contradiction("an entry does not have the size that is listed")


def _contradiction(what: str) -> ArchiveError:
    return ArchiveError(f"the zip file is damaged or cut short ({what})")
