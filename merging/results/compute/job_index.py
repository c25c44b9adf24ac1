"""Records of jobs and of the pieces that run."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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


def _job_fields(fields: Mapping[str, object]) -> list[str]:
    assert fields.keys() <= JobRecord.__dataclass_fields__.keys() - {"key", "updated"}, fields
    return list(fields)


def _one(db: sqlite3.Connection, query: str, value: str) -> Any:
    return db.execute(query, [value]).fetchone()
