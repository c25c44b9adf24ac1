"""What a job is, and how one stands."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from merging.results.compute.processes import Limits


class JobState(StrEnum):
    """How a job stands; the store's index holds these words."""

    MISSING = "missing"
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"


ACTIVE = (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True)
class Piece:
    """One task: `payload` is JSON text for the runner, its result is kept under `key`."""

    key: str
    payload: str


@dataclass(frozen=True)
class Job:
    """What a person waits for.

    Attributes:
        key: 64 hexadecimal digits.
        title: What a person reads.
        pieces: In order of importance: earlier ones run first.
        runner: `"package.module:function"`, called in a worker as `function(payload, context)`;
            it returns named arrays and JSON values that say what they are.
        needs: Jobs whose results must be in the store first.
        limits: What each piece may take, where anything uploaded is in it; else None.
        quick: Whether a person can do nothing before it is there: it goes first.
    """

    key: str
    title: str
    pieces: tuple[Piece, ...]
    runner: str
    needs: tuple[Job, ...] = ()
    limits: Limits | None = None
    quick: bool = False


@dataclass(frozen=True)
class Status:
    """How a job stands.

    Attributes:
        state: Where it is between missing and done.
        done: Pieces that are done, and the fraction of those that run.
        total: Pieces in all.
        note: What is going on, in words.
        error: Why it failed, was interrupted, or was stopped by nobody; else None.
        seconds: Since it was submitted, until it ended.
        eta: Seconds that are left if it goes on like this; None while that is unknown.
    """

    state: JobState
    done: float
    total: float
    note: str = ""
    error: str | None = None
    seconds: float = 0.0
    eta: float | None = None


# In a worker
