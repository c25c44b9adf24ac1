"""Records of jobs and of the pieces that run, in the index of a store."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from merging.results.compute.index import Index

JOB_STATES = ("queued", "running", "done", "failed", "stopped", "interrupted")


@dataclass(frozen=True)
class JobRecord:
    """What is known of a job that somebody asked for.

    Attributes:
        key: The job's key.
        title: What a person reads.
        state: One of `JOB_STATES`.
        done: Pieces that were finished when this was written.
        total: Pieces in all.
        note: What is going on, in words.
        error: Why it failed or was interrupted, else None.
        owner: Who asked last.
        process: The process that answers for it.
        base: Pieces that were there already when it was submitted.
        submitted: Seconds since the epoch.
        started: When its first piece began, or None.
        updated: When this record was last written.
    """

    key: str
    title: str
    state: str
    done: float
    total: float
    note: str
    error: str | None
    owner: str
    process: str
    base: float
    submitted: float
    started: float | None
    updated: float


@dataclass(frozen=True)
class PieceProgress:
    """How far a piece that runs now has come.

    Attributes:
        done: How much is done,
        total: of how much.
        note: What is going on, in words.
        worker: The process that runs it, as `merging.results.compute.processes` names it.
        used: Seconds of processor time that the process had taken when the piece began.
    """

    done: float
    total: float
    note: str
    worker: str = ""
    used: float = 0.0


class JobIndex:
    """What is known of jobs, and of the pieces that run.

    Args:
        index: Of the store.
    """

    def __init__(self, index: Index) -> None:
        self._index = index

    def record(self, key: str) -> JobRecord | None:
        """Return the record of a job, or None if nobody asked for it."""
        return next(iter(self._find("where key = ?", [key])), None)

    def records(self, *states: str) -> list[JobRecord]:
        """Return the records of all jobs in one of the states (none: all), newest first."""
        where = "where state in (select value from json_each(?))" if states else "where ? = '[]'"
        return self._find(f"{where} order by submitted desc", [json.dumps(states)])

    def write(self, key: str, **fields: float | str | None) -> None:
        """Write some fields of a job's record, which is made if it is not there."""
        names = _job_fields(fields)
        with self._index.explained("write a job"), self._index.transaction() as db:
            db.execute(
                f"insert into jobs (key, updated, {', '.join(names)})"
                f" values (?, ?{', ?' * len(names)}) on conflict (key) do update set"
                f" {', '.join(f'{name} = excluded.{name}' for name in ('updated', *names))}",
                [key, time.time(), *fields.values()],
            )

    def update(self, key: str, process: str, **fields: float | str | None) -> None:
        """Write some fields of a job's record, provided that `process` still answers for it."""
        changes = ", ".join(f"{name} = ?" for name in ("updated", *_job_fields(fields)))
        with self._index.explained("write a job"), self._index.transaction() as db:
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
        with self._index.explained("write a job"), self._index.transaction() as db:
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
        with self._index.explained("write progress"), self._index.transaction() as db:
            db.execute(
                "insert into pieces (key, done, total, note) values (?, ?, ?, ?)"
                " on conflict (key) do update set"
                " done = excluded.done, total = excluded.total, note = excluded.note",
                [key, done, total, note],
            )
            return bool(_one(db, "select stop from pieces where key = ?", key)[0])

    def progress(self, keys: Iterable[str]) -> dict[str, PieceProgress]:
        """Return the progress of those of the pieces that run now."""
        with self._index.explained("read progress"), self._index.connection() as db:
            rows = db.execute(
                "select key, done, total, note, worker, used from pieces where total > 0"
                " and key in (select value from json_each(?))",
                [json.dumps(list(keys))],
            ).fetchall()
        return {key: PieceProgress(*rest) for key, *rest in rows}

    def clear_progress(self, keys: Iterable[str]) -> None:
        """Forget the progress of pieces that do not run, and any request to stop them."""
        with self._index.explained("write progress"), self._index.transaction() as db:
            db.executemany("delete from pieces where key = ?", [(key,) for key in keys])

    def request_stop(self, keys: Iterable[str]) -> None:
        """Ask running pieces to stop at their next report."""
        with self._index.explained("write progress"), self._index.transaction() as db:
            db.executemany(
                "insert into pieces (key, stop) values (?, 1)"
                " on conflict (key) do update set stop = 1",
                [(key,) for key in keys],
            )

    def set_aside(self, keys: Iterable[str]) -> None:
        """Note that pieces were ended from outside, and are not to run until they are sent anew."""
        with self._index.explained("write progress"), self._index.transaction() as db:
            db.executemany(
                "insert into pieces (key, stop) values (?, 1) on conflict (key) do update set"
                " stop = 1, done = 0, total = 0, note = '', worker = ''",
                [(key,) for key in keys],
            )

    def stop_requested(self, key: str) -> bool:
        """Return whether a piece was asked to stop."""
        with self._index.explained("read progress"), self._index.connection() as db:
            row = _one(db, "select stop from pieces where key = ?", key)
        return bool(row and row[0])

    def _find(self, clause: str, values: list[str]) -> list[JobRecord]:
        names = ", ".join(JobRecord.__dataclass_fields__)
        with self._index.explained("read the list of jobs"), self._index.connection() as db:
            rows = db.execute(f"select {names} from jobs {clause}", values).fetchall()
        return [JobRecord(*row) for row in rows]


def _job_fields(fields: Mapping[str, object]) -> list[str]:
    assert fields.keys() <= JobRecord.__dataclass_fields__.keys() - {"key", "updated"}, fields
    return list(fields)


def _one(db: sqlite3.Connection, query: str, value: str) -> Any:
    return db.execute(query, [value]).fetchone()
