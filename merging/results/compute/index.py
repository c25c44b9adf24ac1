"""The index of a store: an SQLite file, which is made again from the files when it is gone.

A name of a file says what it is: so an index that was deleted, even while the store is in use, is
made anew. Any number of threads and processes of one machine may share it; SQLite's write-ahead log
does not work across machines.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from merging.results.compute.entry import kept_files
from merging.schema.errors import StoreError

_BESIDE = ("-wal", "-shm", "-journal")  # what SQLite keeps beside the index
_MIGRATIONS = (  # the index has `pragma user_version = n` after the first n of these
    (
        "create table blobs (kind text, key text, path text, size int, sha256 text, pinned int,"
        " used real, primary key (kind, key)) without rowid",
        "create table jobs (key text primary key, title text default '', state text default"
        " 'queued', done real default 0, total real default 0, note text default '', error text,"
        " owner text default '', process text default '', base real default 0,"
        " submitted real default 0, started real, updated real) without rowid",
        "create table pieces (key text primary key, done real default 0, total real default 0,"
        " note text default '', stop int default 0) without rowid",
    ),
    (
        "alter table pieces add column worker text default ''",
        "alter table pieces add column used real default 0",
    ),
)

_File = tuple[int, int]  # device and number of a file, whatever it is called


class Index:
    """Connections to the index of a store, and what their errors mean to a person.

    Args:
        folder: The store's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / "index.sqlite"
        self._idle: list[tuple[_File, sqlite3.Connection]] = []  # with the index they hold

    def open(self) -> None:
        """Make the index if there is none, and bring an old one up to date.

        Raises:
            StoreError: If a newer version wrote it.
        """
        with self.transaction() as db:
            self._migrate(db)

    def close(self) -> None:
        """Close the connections; a later call opens them again."""
        while self._idle:
            self._idle.pop()[1].close()

    @contextmanager
    def explained(self, doing: str) -> Iterator[None]:
        """Raise what the disk or the index refuses as a `StoreError`.

        Args:
            doing: What is tried, for the message.

        Yields:
            Nothing.

        Raises:
            StoreError: If it fails.
        """
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            message = f"cannot {doing} in {self.folder}: {_reason(error)}"
            raise StoreError(message) from error

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection.

        Yields:
            One that nobody else uses meanwhile; one that saw an error is not lent again.
        """
        file, db = self._lend()
        try:
            yield db
        except BaseException:
            db.close()
            raise
        self._idle.append((file, db))

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection to write to.

        Yields:
            One while nobody else writes; an error undoes what was written.
        """
        with self.connection() as db:
            db.execute("begin immediate")
            yield db
            db.execute("commit")

    def _lend(self) -> tuple[_File, sqlite3.Connection]:
        here = self._file()
        with suppress(IndexError):
            while True:
                file, db = self._idle.pop()
                if file == here:
                    return file, db
                db.close()  # the index that it holds was deleted
        return self._connect()

    def _file(self) -> _File | None:
        # which file the index is, not only where
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            return None
        return stat.st_dev, stat.st_ino

    def _connect(self) -> tuple[_File, sqlite3.Connection]:
        while (file := self._file()) is None:
            self._make()
        db = _open(f"{self._path.as_uri()}?mode=rw")  # so that a new one is made by us alone
        deadline = time.monotonic() + 30
        while True:
            try:
                db.execute("pragma journal_mode = wal")
                db.execute("pragma synchronous = normal")
                return file, db
            except sqlite3.Error as error:  # the time limit does not hold for a change of mode
                if "locked" not in str(error) or time.monotonic() > deadline:
                    db.close()
                    raise
                time.sleep(0.01)

    def _make(self) -> None:
        """Make an index of the files that are there, once among all who find it missing.

        It is made beside its place. What is left of the one before must be gone first, and nobody
        may open the new one until then: a file of its own is the lock.
        """
        temp = self.folder / "index.new"
        with closing(_open((self.folder / "index.lock").as_uri())) as lock:
            lock.execute("begin exclusive")
            if self._path.exists():
                return
            for path in (temp, *(self._path.with_name(f"index.sqlite{s}") for s in _BESIDE)):
                path.unlink(missing_ok=True)
            with closing(_open(temp.as_uri())) as db:
                db.execute("begin immediate")
                self._migrate(db)
                db.executemany(
                    "insert or replace into blobs values (?, ?, ?, ?, ?, 0, ?)",
                    kept_files(self.folder),
                )
                db.execute("commit")
            temp.replace(self._path)

    def _migrate(self, db: sqlite3.Connection) -> None:
        version = db.execute("pragma user_version").fetchone()[0]
        if version > len(_MIGRATIONS):
            raise StoreError(
                f"the result store in {self.folder} was written by a newer version; "
                "update, or set ONE_BASIN_STORE to another folder"
            )
        for statements in _MIGRATIONS[version:]:
            for statement in statements:
                db.execute(statement)
        db.execute(f"pragma user_version = {len(_MIGRATIONS)}")


def _open(place: str) -> sqlite3.Connection:
    return sqlite3.connect(
        place, timeout=30, isolation_level=None, check_same_thread=False, uri=True
    )


def _reason(error: Exception) -> str:
    """Say what went wrong on a disk, and what to do about it."""
    text = str(error).lower()
    elsewhere = "or set ONE_BASIN_STORE to another folder and start again"
    if "no space" in text or "full" in text or "quota" in text:
        return f"the disk is full; free some space there, {elsewhere}"
    if isinstance(error, PermissionError) or "read-only" in text or "readonly" in text:
        return f"it may not be written; allow writing there, {elsewhere}"
    if "malformed" in text or "not a database" in text:
        return (
            "its index is damaged; delete index.sqlite there, and it is made again from the files, "
            f"{elsewhere}"
        )
    if "locked" in text:
        return f"another program kept it busy for 30 seconds; close that, {elsewhere}"
    return f"{error}; check that folder, {elsewhere}"
