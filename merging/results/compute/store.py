"""Where results are kept: arrays and their meaning, under the SHA-256 of what was asked for.

A folder holds one file per result (`ab/<key>.npz`) and an SQLite index, see `index` and `blobs`;
beside the results are uploaded `files`, and the records of jobs in `job_index`. Any number of
threads and processes of one machine may share a folder. What the disk or the index refuses is
raised as a `StoreError`, and so is a key that is not 64 hexadecimal digits.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import os
import shutil
import sqlite3
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from merging.results.compute.blobs import Blobs, checked
from merging.results.compute.entry import (
    JSON,
    Entry,
    beside,
    bundled_results,
    decode,
    encode,
    read_bundled,
    read_entry,
)
from merging.results.compute.files import Files
from merging.results.compute.index import Index
from merging.results.compute.job_index import JobIndex
from merging.schema.errors import StoreError

log = logging.getLogger(__name__)


class Store:
    """Results, uploaded files, and the records of jobs in one folder.

    Args:
        folder: Created with mode 0700 if it is not there.
        limit_bytes: Beyond this, what was used longest ago makes room. Pinned entries stay.
        bundled: Folders of `<key>.npz` that ship with the app; only ever read.

    Attributes:
        files: Uploaded files.
        jobs: The records of jobs and of the pieces that run.

    Raises:
        StoreError: If the folder cannot be used.
    """

    def __init__(self, folder: Path, limit_bytes: int = 4 << 30, bundled: Sequence[Path] = ()):
        self.folder = Path(folder).absolute()
        self.limit_bytes = limit_bytes
        self.bundled = tuple(Path(path).absolute() for path in bundled)
        self._index = Index(self.folder)
        self._blobs = Blobs(self._index, limit_bytes)
        self.files = Files(self._index, self._blobs)
        self.jobs = JobIndex(self._index)
        with self._index.explained("open the result store"):
            self._bundled = bundled_results(self.bundled)
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                self._index.open()
            self._blobs.sweep()

    def close(self) -> None:
        """Close the connections to the index; a later call opens them again."""
        self._index.close()

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
        self._blobs.keep("result", key, ".npz", encode(arrays, meta), pinned=pinned)
        with suppress(OSError):
            for kind in ("partial", "state"):
                self._blobs.path(kind, key, ".npz").unlink(missing_ok=True)

    def get(self, key: str) -> Entry | None:
        """Return a result, or None if it is not there.

        A file that is not what was written moves to `quarantine/` and counts as missing.
        """
        if checked(key) in self._bundled:
            try:
                return read_bundled(self._bundled[key], key)
            except StoreError as error:
                log.warning("A bundled result is left out: %s", error)
                self._bundled.pop(key, None)
        with self._index.explained(f"read result {key[:8]}"):
            with self._index.connection() as db:
                known, found = self._sound(db, key)
            if known and found is None:  # look again while nobody can replace it
                with self._index.transaction() as db:
                    known, found = self._sound(db, key)
                    if known and found is None:
                        self._blobs.quarantine(db, key)
        return found

    def has(self, keys: Iterable[str]) -> set[str]:
        """Return those of the keys that have a result, bundled ones included."""
        wanted = list(keys)
        with self._index.explained("look for results"), self._index.connection() as db:
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
        path = self._blobs.path("partial", key, ".npz")
        with self._index.explained(f"keep {path.name}"), beside(path, data, durable=False) as temp:
            temp.replace(path)

    def get_partial(self, key: str) -> Entry | None:
        """Return what is known so far of a result, or None."""
        path = self._blobs.path("partial", key, ".npz")
        try:
            return read_entry(path)
        except StoreError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                log.warning("A partial result is left out: %s", error)
            return None

    def put_state(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep what a piece may go on from when it is started again; the last one wins."""
        data = encode(arrays, {}, zipfile.ZIP_STORED)
        self._blobs.keep("state", key, ".npz", data, durable=False)

    def get_state(self, key: str) -> dict[str, np.ndarray] | None:
        """Return what a piece may go on from, or None if it starts from nothing."""
        try:
            return read_entry(self._blobs.path("state", key, ".npz")).arrays
        except StoreError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                log.warning("A kept state is left out: %s", error)
            return None

    def _sound(self, db: sqlite3.Connection, key: str) -> tuple[bool, Entry | None]:
        """Return whether a result is in the index, and the result if it is what was written."""
        row = self._blobs.row(db, "result", key)
        if row is None:
            return False, None
        try:
            data = row.path.read_bytes()
        except FileNotFoundError:
            return True, None
        if hashlib.sha256(data).hexdigest() != row.sha256:
            return True, None
        try:
            entry = decode(data, f"result {key[:8]} in {self.folder}")
        except StoreError as error:  # it was damaged before the index was made from the files
            log.warning("%s", error)
            return True, None
        self._blobs.touch(db, "result", key, row)
        return True, entry


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
