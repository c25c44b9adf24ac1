"""Where results are kept: arrays and their meaning, under the SHA-256 of what was asked for.

A folder holds one file per result (`ab/<key>.npz`) and an SQLite index. A file is written beside
its place and moved there at once, and its row follows in the same transaction, so a row implies a
whole file whatever is killed when. A file's name is its key: an index that is gone, even while the
store is in use, is made again from the files. Any number of threads and processes of one machine
may share a folder; SQLite's write-ahead log does not work across machines. What the disk or the
index refuses is raised as a `StoreError`, and so is a key that is not 64 hexadecimal digits.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import os
import re
import shutil
import sqlite3
import tempfile
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from merging.results.compute.entry import (
    JSON,
    Entry,
    beside,
    bundled_results,
    decode,
    encode,
    kept_files,
    read_bundled,
    read_entry,
)
from merging.results.compute.job_index import JobRecord, PieceProgress, _job_fields, _one
from merging.schema.errors import StoreError

FILE_SUFFIXES = (".safetensors", ".npz", ".json", ".upload")  # .upload: not read yet, any format

_HOUR = 3600.0
_BESIDE = ("-wal", "-shm", "-journal")  # what SQLite keeps beside the index
_TOUCH_SECONDS = 60.0  # how stale "last used" may grow before reading a result writes it again
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

log = logging.getLogger(__name__)


class Store:
    """Results, uploaded files, and the records of jobs in one folder.

    Args:
        folder: Created with mode 0700 if it is not there.
        limit_bytes: Beyond this, what was used longest ago makes room. Pinned entries stay.
        bundled: Folders of `<key>.npz` that ship with the app; only ever read.

    Raises:
        StoreError: If the folder cannot be used.
    """

    def __init__(self, folder: Path, limit_bytes: int = 4 << 30, bundled: Sequence[Path] = ()):
        self.folder = Path(folder).absolute()
        self.limit_bytes = limit_bytes
        self.bundled = tuple(Path(path).absolute() for path in bundled)
        self._index = self.folder / "index.sqlite"
        self._idle: list[tuple[_File, sqlite3.Connection]] = []  # with the index they hold
        with self._explained("open the result store"):
            self._bundled = bundled_results(self.bundled)
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder), self._transaction() as db:
                self._migrate(db)
            self._sweep()

    def close(self) -> None:
        """Close the connections to the index; a later call opens them again."""
        while self._idle:
            self._idle.pop()[1].close()

    # Results

    def put(
        self,
        key: str,
        arrays: Mapping[str, np.ndarray],
        meta: Mapping[str, JSON],
        pinned: bool = False,
    ) -> None:
        """Keep a result; its partial result and its progress are dropped.

        Args:
            key: 64 hexadecimal digits.
            arrays: Named arrays of any dtype but object.
            meta: JSON values that say what the arrays are.
            pinned: Whether it stays when room is made.
        """
        self._keep("result", key, ".npz", encode(arrays, meta), pinned)
        with suppress(OSError):
            for kind in ("partial", "state"):
                self._path(kind, key, ".npz").unlink(missing_ok=True)

    def get(self, key: str) -> Entry | None:
        """Return a result, or None if it is not there.

        A file that is not what was written moves to `quarantine/` and counts as missing.
        """
        if _checked(key) in self._bundled:
            try:
                return read_bundled(self._bundled[key], key)
            except StoreError as error:
                log.warning("A bundled result is left out: %s", error)
                self._bundled.pop(key, None)
        with self._explained(f"read result {key[:8]}"):
            with self._connection() as db:
                known, found = self._sound(db, key)
            if known and found is None:  # look again while nobody can replace it
                with self._transaction() as db:
                    known, found = self._sound(db, key)
                    if known and found is None:
                        self._quarantine(db, key)
        return found

    def has(self, keys: Iterable[str]) -> set[str]:
        """Return those of the keys that have a result, bundled ones included."""
        wanted = list(keys)
        with self._explained("look for results"), self._connection() as db:
            rows = db.execute(
                "select key from blobs where kind = 'result'"
                " and key in (select value from json_each(?))",
                [json.dumps(wanted)],
            ).fetchall()
        return {key for (key,) in rows} | self._bundled.keys() & set(wanted)

    def put_partial(
        self, key: str, arrays: Mapping[str, np.ndarray], meta: Mapping[str, JSON]
    ) -> None:
        """Keep what is known so far of a result that is being computed; the last one wins."""
        data = encode(arrays, meta, zipfile.ZIP_STORED)
        path = self._path("partial", key, ".npz")
        with self._explained(f"keep {path.name}"), beside(path, data, durable=False) as temp:
            temp.replace(path)

    def get_partial(self, key: str) -> Entry | None:
        """Return what is known so far of a result, or None."""
        path = self._path("partial", key, ".npz")
        try:
            return read_entry(path)
        except StoreError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                log.warning("A partial result is left out: %s", error)
            return None

    def put_state(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep what a piece may go on from when it is started again; the last one wins."""
        data = encode(arrays, {}, zipfile.ZIP_STORED)
        path = self._path("state", key, ".npz")
        with self._explained(f"keep {path.name}"), beside(path, data, durable=False) as temp:
            temp.replace(path)

    def get_state(self, key: str) -> dict[str, np.ndarray] | None:
        """Return what a piece may go on from, or None if it starts from nothing."""
        try:
            return read_entry(self._path("state", key, ".npz")).arrays
        except StoreError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                log.warning("A kept state is left out: %s", error)
            return None

    # Files that a person brought

    def put_file(self, key: str, source: bytes | Path, suffix: str, pinned: bool = False) -> Path:
        """Keep an uploaded file.

        Args:
            key: 64 hexadecimal digits; the name it came with is never used.
            source: Its bytes, or the file to copy them from.
            suffix: One of `FILE_SUFFIXES`.
            pinned: Whether it stays when room is made.

        Returns:
            Where it is now.

        Raises:
            StoreError: If it cannot be kept, the key is none, or the suffix is another.
        """
        if suffix not in FILE_SUFFIXES:
            choices = ", ".join(FILE_SUFFIXES)
            raise StoreError(f"files ending in {suffix!r} are not kept; expected {choices}")
        return self._keep("file", key, suffix, source, pinned)

    def file(self, key: str) -> Path | None:
        """Return where an uploaded file is, or None if it is not there (whole)."""
        with self._explained(f"find file {_checked(key)[:8]}"), self._connection() as db:
            row = self._row(db, "file", key)
            if row is None:
                return None
            path = self.folder / row[0]
            try:
                whole = path.stat().st_size == row[1]
            except FileNotFoundError:
                whole = False
        return path if whole else None

    def drop_upload(self, key: str) -> None:
        """Forget an upload whose bytes nobody needs any more; what was read of it stays."""
        path = self._path("file", key, ".upload")
        place = path.relative_to(self.folder).as_posix()
        with self._explained(f"drop {path.name}"), self._transaction() as db:
            db.execute("delete from blobs where kind = 'file' and path = ?", [place])
            path.unlink(missing_ok=True)

    # Jobs and the pieces that run

    def job(self, key: str) -> JobRecord | None:
        """Return the record of a job, or None if nobody asked for it."""
        return next(iter(self._jobs("where key = ?", [key])), None)

    def jobs(self, *states: str) -> list[JobRecord]:
        """Return the records of all jobs in one of the states (none: all), newest first."""
        where = "where state in (select value from json_each(?))" if states else "where ? = '[]'"
        return self._jobs(f"{where} order by submitted desc", [json.dumps(states)])

    def write_job(self, key: str, **fields: float | str | None) -> None:
        """Write some fields of a job's record, which is made if it is not there."""
        names = _job_fields(fields)
        with self._explained("write a job"), self._transaction() as db:
            db.execute(
                f"insert into jobs (key, updated, {', '.join(names)})"
                f" values (?, ?{', ?' * len(names)}) on conflict (key) do update set"
                f" {', '.join(f'{name} = excluded.{name}' for name in ('updated', *names))}",
                [key, time.time(), *fields.values()],
            )

    def update_job(self, key: str, process: str, **fields: float | str | None) -> None:
        """Write some fields of a job's record, provided that `process` still answers for it."""
        changes = ", ".join(f"{name} = ?" for name in ("updated", *_job_fields(fields)))
        with self._explained("write a job"), self._transaction() as db:
            db.execute(
                f"update jobs set {changes} where key = ? and process = ?",
                [time.time(), *fields.values(), key, process],
            )

    def begin(self, job_key: str, key: str, worker: str, used: float) -> None:
        """Note that a queued job runs now, and which process runs a piece of it.

        Args:
            job_key: The job.
            key: The piece.
            worker: The process, as `merging.results.compute.processes` names it.
            used: Seconds of processor time that it has taken so far.
        """
        now = time.time()
        with self._explained("write a job"), self._transaction() as db:
            db.execute(
                "update jobs set state = 'running', started = coalesce(started, ?), updated = ?"
                " where key = ? and state = 'queued'",
                [now, now, job_key],
            )
            db.execute(
                "insert into pieces (key, total, worker, used) values (?, 1, ?, ?)"
                " on conflict (key) do update set done = 0, total = 1, note = '',"
                " worker = excluded.worker, used = excluded.used",
                [key, worker, used],
            )

    def report(self, key: str, done: float, total: float, note: str = "") -> bool:
        """Write how far a running piece has come, and return whether it was asked to stop."""
        with self._explained("write progress"), self._transaction() as db:
            db.execute(
                "insert into pieces (key, done, total, note) values (?, ?, ?, ?)"
                " on conflict (key) do update set"
                " done = excluded.done, total = excluded.total, note = excluded.note",
                [key, done, total, note],
            )
            return bool(_one(db, "select stop from pieces where key = ?", key)[0])

    def progress(self, keys: Iterable[str]) -> dict[str, PieceProgress]:
        """Return the progress of those of the pieces that run now."""
        with self._explained("read progress"), self._connection() as db:
            rows = db.execute(
                "select key, done, total, note, worker, used from pieces where total > 0"
                " and key in (select value from json_each(?))",
                [json.dumps(list(keys))],
            ).fetchall()
        return {key: PieceProgress(*rest) for key, *rest in rows}

    def clear_progress(self, keys: Iterable[str]) -> None:
        """Forget the progress of pieces that do not run, and any request to stop them."""
        with self._explained("write progress"), self._transaction() as db:
            db.executemany("delete from pieces where key = ?", [(key,) for key in keys])

    def request_stop(self, keys: Iterable[str]) -> None:
        """Ask running pieces to stop at their next report."""
        with self._explained("write progress"), self._transaction() as db:
            db.executemany(
                "insert into pieces (key, stop) values (?, 1)"
                " on conflict (key) do update set stop = 1",
                [(key,) for key in keys],
            )

    def set_aside(self, keys: Iterable[str]) -> None:
        """Note that pieces were ended from outside, and are not to run until they are sent anew."""
        with self._explained("write progress"), self._transaction() as db:
            db.executemany(
                "insert into pieces (key, stop) values (?, 1) on conflict (key) do update set"
                " stop = 1, done = 0, total = 0, note = '', worker = ''",
                [(key,) for key in keys],
            )

    def stop_requested(self, key: str) -> bool:
        """Return whether a piece was asked to stop."""
        with self._explained("read progress"), self._connection() as db:
            row = _one(db, "select stop from pieces where key = ?", key)
        return bool(row and row[0])

    # The folder

    def _path(self, kind: str, key: str, suffix: str) -> Path:
        middle = "" if kind == "result" else f".{kind}"
        return self.folder / _checked(key)[:2] / f"{key}{middle}{suffix}"

    def _keep(self, kind: str, key: str, suffix: str, source: bytes | Path, pinned: bool) -> Path:
        path = self._path(kind, key, suffix)
        with self._explained(f"keep {path.name}"), beside(path, source) as temp:
            with temp.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            size, place = temp.stat().st_size, path.relative_to(self.folder).as_posix()
            with self._transaction() as db:
                temp.replace(path)
                db.execute(
                    "insert or replace into blobs values (?, ?, ?, ?, ?, ?, ?)",
                    [kind, key, place, size, digest, pinned, time.time()],
                )
                if kind == "result":
                    db.execute("delete from pieces where key = ?", [key])
                self._evict(db, kind, key)
        return path

    def _evict(self, db: sqlite3.Connection, kind: str, key: str) -> None:
        """Make room for what was just kept."""
        total = db.execute("select coalesce(sum(size), 0) from blobs").fetchone()[0]
        if total <= self.limit_bytes:
            return
        rows = db.execute(
            "select kind, key, path, size from blobs"
            " where not pinned and not (kind = ? and key = ?) order by used",
            [kind, key],
        ).fetchall()
        for old_kind, old_key, place, size in rows:
            db.execute("delete from blobs where kind = ? and key = ?", [old_kind, old_key])
            (self.folder / place).unlink(missing_ok=True)
            total -= size
            if total <= self.limit_bytes:
                return

    def _sound(self, db: sqlite3.Connection, key: str) -> tuple[bool, Entry | None]:
        """Return whether a result is in the index, and the result if it is what was written."""
        row = self._row(db, "result", key)
        if row is None:
            return False, None
        place, _, digest, used = row
        try:
            data = (self.folder / place).read_bytes()
        except FileNotFoundError:
            return True, None
        if hashlib.sha256(data).hexdigest() != digest:
            return True, None
        try:
            entry = decode(data, f"result {key[:8]} in {self.folder}")
        except StoreError as error:  # it was damaged before the index was made from the files
            log.warning("%s", error)
            return True, None
        if time.time() - used > _TOUCH_SECONDS:
            with suppress(sqlite3.OperationalError):  # reading works even where writing does not
                db.execute(
                    "update blobs set used = ? where kind = 'result' and key = ?",
                    [time.time(), key],
                )
        return True, entry

    def _quarantine(self, db: sqlite3.Connection, key: str) -> None:
        path = self._path("result", key, ".npz")
        log.warning("Result %s is not what was written; it moves to quarantine.", key[:8])
        (self.folder / "quarantine").mkdir(mode=0o700, exist_ok=True)
        with suppress(FileNotFoundError):
            path.replace(self.folder / "quarantine" / path.name)
        db.execute("delete from blobs where kind = 'result' and key = ?", [key])

    def _sweep(self) -> None:
        """Remove what killed processes left behind: temporary files, and files without a row."""
        with self._connection() as db:
            known = {place for (place,) in db.execute("select path from blobs")}
        now = time.time()
        for path in self.folder.glob("??/*"):
            lasting = path.name.endswith((".partial.npz", ".state.npz"))
            patience = 24 * _HOUR if lasting else _HOUR
            with suppress(FileNotFoundError):  # another process sweeps too
                stale = now - path.stat().st_mtime > patience
                if stale and path.relative_to(self.folder).as_posix() not in known:
                    path.unlink()

    # The index

    def _jobs(self, clause: str, values: list[str]) -> list[JobRecord]:
        names = ", ".join(JobRecord.__dataclass_fields__)
        with self._explained("read the list of jobs"), self._connection() as db:
            rows = db.execute(f"select {names} from jobs {clause}", values).fetchall()
        return [JobRecord(*row) for row in rows]

    @staticmethod
    def _row(db: sqlite3.Connection, kind: str, key: str) -> Any:
        return db.execute(
            "select path, size, sha256, used from blobs where kind = ? and key = ?", [kind, key]
        ).fetchone()

    def _connect(self) -> tuple[_File, sqlite3.Connection]:
        while (file := self._index_file()) is None:
            self._make_index()
        db = _open(f"{self._index.as_uri()}?mode=rw")  # so that a new one is made by us alone
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

    def _make_index(self) -> None:
        """Make an index of the files that are there, once among all who find it missing.

        It is made beside its place. What is left of the one before must be gone first, and nobody
        may open the new one until then: a file of its own is the lock.
        """
        temp = self.folder / "index.new"
        with closing(_open((self.folder / "index.lock").as_uri())) as lock:
            lock.execute("begin exclusive")
            if self._index.exists():
                return
            for path in (temp, *(self._index.with_name(f"index.sqlite{s}") for s in _BESIDE)):
                path.unlink(missing_ok=True)
            with closing(_open(temp.as_uri())) as db:
                db.execute("begin immediate")
                self._migrate(db)
                db.executemany(
                    "insert or replace into blobs values (?, ?, ?, ?, ?, 0, ?)",
                    kept_files(self.folder),
                )
                db.execute("commit")
            temp.replace(self._index)

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        # nobody else uses it meanwhile, and one that saw an error is not lent again
        file, db = self._lend()
        try:
            yield db
        except BaseException:
            db.close()
            raise
        self._idle.append((file, db))

    def _lend(self) -> tuple[_File, sqlite3.Connection]:
        here = self._index_file()
        with suppress(IndexError):
            while True:
                file, db = self._idle.pop()
                if file == here:
                    return file, db
                db.close()  # the index that it holds was deleted
        return self._connect()

    def _index_file(self) -> _File | None:
        # which file the index is, not only where
        try:
            stat = self._index.stat()
        except FileNotFoundError:
            return None
        return stat.st_dev, stat.st_ino

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        # nobody else writes meanwhile, and an error undoes what was written
        with self._connection() as db:
            db.execute("begin immediate")
            yield db
            db.execute("commit")

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

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            message = f"cannot {doing} in {self.folder}: {_reason(error)}"
            raise StoreError(message) from error


def open_default(bundled: Sequence[Path] = ()) -> tuple[Store, str | None]:
    """Open the store of this user: `$ONE_BASIN_STORE`, else `~/.cache/one-basin`.

    Args:
        bundled: Folders of results that ship with the app.

    Returns:
        The store, and None; or, if that folder cannot be used, a store that lives as long as
        this process, and a sentence that says so.
    """
    try:
        return Store(_default_folder(), bundled=bundled), None
    except StoreError as error:
        folder = Path(tempfile.mkdtemp(prefix="one-basin-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        notice = f"Results are kept only until the app ends: {error}."
        return Store(folder, bundled=bundled), notice


def _default_folder() -> Path:
    chosen = os.environ.get("ONE_BASIN_STORE")
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(chosen).expanduser() if chosen else Path(cache).expanduser() / "one-basin"
    except RuntimeError as error:
        raise StoreError(f"no home folder ({error}); set ONE_BASIN_STORE to a folder") from error


def _open(place: str) -> sqlite3.Connection:
    return sqlite3.connect(
        place, timeout=30, isolation_level=None, check_same_thread=False, uri=True
    )


def _checked(key: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", key):
        raise StoreError(f"{key!r:.80} is no key; expected 64 hexadecimal digits")
    return key


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
