"""The files that a store keeps: each moved to its place at once, with a row of the index.

A file is written beside its place, and its row follows in the same transaction as the move, so a
row implies a whole file whatever is killed when.
"""

from __future__ import annotations

import hashlib
import logging
import re
import sqlite3
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from merging.results.compute.entry import beside
from merging.results.compute.index import Index
from merging.schema.errors import StoreError

_HOUR = 3600.0
_TOUCH_SECONDS = 60.0  # how stale "last used" may grow before reading a result writes it again

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """What the index says of a file.

    Attributes:
        path: Where it is.
        size: Bytes.
        sha256: Of its bytes.
        used: When it was last used, in seconds since the epoch.
    """

    path: Path
    size: int
    sha256: str
    used: float


class Blobs:
    """Files of a kind under a key; what was used longest ago makes room.

    Kinds are `"result"`, `"file"` (uploaded) and `"state"` (what a piece may go on from).

    Args:
        index: Of the store.
        limit_bytes: Beyond this, room is made.
    """

    def __init__(self, index: Index, limit_bytes: int) -> None:
        self._folder = index.folder
        self._index = index
        self._limit_bytes = limit_bytes

    def path(self, kind: str, key: str, suffix: str) -> Path:
        """Return where a file is, if it is there.

        Raises:
            StoreError: If the key is not 64 hexadecimal digits.
        """
        middle = "" if kind == "result" else f".{kind}"
        return self._folder / checked(key)[:2] / f"{key}{middle}{suffix}"

    def row(self, db: sqlite3.Connection, kind: str, key: str) -> Row | None:
        """Return what the index says of a file, or None."""
        found = db.execute(
            "select path, size, sha256, used from blobs where kind = ? and key = ?", [kind, key]
        ).fetchone()
        return None if found is None else Row(self._folder / found[0], *found[1:])

    def touch(self, db: sqlite3.Connection, kind: str, key: str, row: Row) -> None:
        """Note that a file was used."""
        if time.time() - row.used > _TOUCH_SECONDS:
            with suppress(sqlite3.OperationalError):  # reading works even where writing does not
                db.execute(
                    "update blobs set used = ? where kind = ? and key = ?",
                    [time.time(), kind, key],
                )

    def keep(
        self,
        kind: str,
        key: str,
        suffix: str,
        source: bytes | Path,
        *,
        pinned: bool = False,
        durable: bool = True,
    ) -> Path:
        """Keep a file, and make room for it.

        Args:
            kind: One of the kinds.
            key: 64 hexadecimal digits.
            suffix: How its name ends.
            source: Its bytes, or the file to copy them from.
            pinned: Whether it stays when room is made.
            durable: Whether it must outlive a loss of power.

        Returns:
            Where it is now.
        """
        path = self.path(kind, key, suffix)
        with (
            self._index.explained(f"keep {path.name}"),
            beside(path, source, durable=durable) as temp,
        ):
            with temp.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            size, place = temp.stat().st_size, path.relative_to(self._folder).as_posix()
            with self._index.transaction() as db:
                temp.replace(path)
                db.execute(
                    "insert or replace into blobs values (?, ?, ?, ?, ?, ?, ?)",
                    [kind, key, place, size, digest, pinned, time.time()],
                )
                if kind == "result":  # what it took to get here has served its turn
                    db.execute("delete from pieces where key = ?", [key])
                    db.execute("delete from blobs where kind = 'state' and key = ?", [key])
                self._evict(db, kind, key)
        return path

    def quarantine(self, db: sqlite3.Connection, key: str) -> None:
        """Put a result aside that is not what was written."""
        path = self.path("result", key, ".npz")
        log.warning("Result %s is not what was written; it moves to quarantine.", key[:8])
        (self._folder / "quarantine").mkdir(mode=0o700, exist_ok=True)
        with suppress(FileNotFoundError):
            path.replace(self._folder / "quarantine" / path.name)
        db.execute("delete from blobs where kind = 'result' and key = ?", [key])

    def sweep(self) -> None:
        """Remove what nobody comes back for: what killed processes left, and states of a day ago.

        What they leave is temporary files, and files without a row.
        """
        now = time.time()
        with self._index.transaction() as db:
            db.execute("delete from blobs where kind = 'state' and used < ?", [now - 24 * _HOUR])
            known = {place for (place,) in db.execute("select path from blobs")}
        for path in self._folder.glob("??/*"):
            lasting = path.name.endswith((".partial.npz", ".state.npz"))
            patience = 24 * _HOUR if lasting else _HOUR
            with suppress(FileNotFoundError):  # another process sweeps too
                stale = now - path.stat().st_mtime > patience
                if stale and path.relative_to(self._folder).as_posix() not in known:
                    path.unlink()

    def _evict(self, db: sqlite3.Connection, kind: str, key: str) -> None:
        """Make room for what was just kept."""
        total = db.execute("select coalesce(sum(size), 0) from blobs").fetchone()[0]
        if total <= self._limit_bytes:
            return
        rows = db.execute(
            "select kind, key, path, size from blobs"
            " where not pinned and not (kind = ? and key = ?) order by used",
            [kind, key],
        ).fetchall()
        for old_kind, old_key, place, size in rows:
            db.execute("delete from blobs where kind = ? and key = ?", [old_kind, old_key])
            (self._folder / place).unlink(missing_ok=True)
            total -= size
            if total <= self._limit_bytes:
                return


def checked(key: str) -> str:
    """Return a key.

    Raises:
        StoreError: If it is not 64 hexadecimal digits.
    """
    if not re.fullmatch("[0-9a-f]{64}", key):
        raise StoreError(f"{key!r:.80} is no key; expected 64 hexadecimal digits")
    return key
