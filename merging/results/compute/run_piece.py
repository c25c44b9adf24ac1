"""How a worker computes a piece and keeps its result.

`run_piece` is what Dask is sent, by this module's name; `dask_setup` is what Dask calls in a local
worker that starts. Nothing here imports Dask.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from traceback import format_exc

import numpy as np
import psutil

from merging.results.compute.job import Piece
from merging.results.compute.processes import Limits, held, processor_seconds, this_process
from merging.results.compute.store import JSON, Store
from merging.schema.errors import ComputeError, MergingError, StoppedError
from merging.schema.legible import legible

ENDED_TWICE = (
    "the process that worked on this ended twice, most often for want of memory; ask for less at "
    "once, or use smaller models"
)

_KEPT_BYTES = 450 << 20  # a worker that holds more gives back what it does not use
_LOGGED = 20_000  # characters of a traceback
_REPORT_SECONDS = 0.2  # a report or partial result is written at most this often
_STATE_SECONDS = 5.0  # so is what a piece goes on from, and
_STATE_SHARE = 20  # it takes at most this part of the time
_OUT_OF_MEMORY = (  # what PyTorch, NumPy and the system say
    "can't allocate", "cannot allocate", "not enough memory", "out of memory", "alloc_cpu",
    "bad_alloc",
)  # fmt: skip

_own_process = False  # whether this process has one piece at a time, and nothing else

log = logging.getLogger(__name__)


class Context:
    """What a runner is given beside its payload: the store, and somebody to report to."""

    def __init__(self, store: Store, key: str):
        self.store = store
        self._key = key
        self._reported = self._kept = -_REPORT_SECONDS
        self._pending: tuple[Mapping[str, np.ndarray], Mapping[str, JSON]] | None = None
        self._state: Callable[[], Mapping[str, np.ndarray]] | None = None
        self._state_due = time.monotonic() + _STATE_SECONDS

    def report(self, done: float, total: float, note: str = "") -> None:
        """Say how far the piece has come; a good place to be stopped.

        Args:
            done: How much is done,
            total: of how much.
            note: What is going on, in words.

        Raises:
            StoppedError: If somebody asked for that.
        """
        now = time.monotonic()
        if now - self._reported < _REPORT_SECONDS:
            return
        self._reported = now
        if self.store.jobs.report(self._key, done, total, note):
            raise StoppedError("stopped as asked")

    def partial(self, arrays: Mapping[str, np.ndarray], meta: Mapping[str, JSON]) -> None:
        """Show what is known so far; the arrays must not change afterwards."""
        self._pending = arrays, meta
        if time.monotonic() - self._kept >= _REPORT_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Keep the last partial result now."""
        if self._pending is not None:
            self.store.put_partial(self._key, *self._pending)
            self._pending, self._kept = None, time.monotonic()

    def keep_state(self, state: Callable[[], Mapping[str, np.ndarray]]) -> None:
        """Offer what the piece could go on from: kept now and then, and when it is stopped.

        Args:
            state: Returns named arrays; called now, or when the piece stops at its next report.
        """
        self._state = state
        if time.monotonic() >= self._state_due:
            self.flush_state()

    def flush_state(self) -> None:
        """Keep what the piece could go on from now."""
        if self._state is not None:
            began = time.monotonic()
            self.store.put_state(self._key, self._state())
            taken = time.monotonic() - began
            self._state = None
            self._state_due = time.monotonic() + max(_STATE_SECONDS, _STATE_SHARE * taken)

    def kept_state(self) -> Mapping[str, np.ndarray] | None:
        """Return what this piece kept when it ran before, or None."""
        return self.store.get_state(self._key)


@dataclass(frozen=True)
class Place:
    """Which store a worker opens."""

    folder: Path
    limit_bytes: int
    bundled: tuple[Path, ...]


@functools.lru_cache(maxsize=8)
def _store_at(place: Place) -> Store:
    return Store(place.folder, place.limit_bytes, place.bundled)


def run_piece(
    runner: str, piece: Piece, job_key: str, place: Place, limits: Limits | None = None
) -> None:
    """Compute one piece and keep its result; called by Dask in a worker.

    Args:
        runner: As in `Job`.
        piece: What to compute.
        job_key: The job it was first sent for.
        place: Where the result goes.
        limits: What it may take; held to where `dask_setup` was called.

    Raises:
        MergingError: What the runner raised, also when it is stopped.
        ComputeError: If the runner raised anything else; the log has the traceback.
    """
    store = _store_at(place)
    if store.has([piece.key]):
        return
    context = Context(store, piece.key)
    try:
        store.jobs.begin(job_key, piece.key, this_process(), processor_seconds(psutil.Process()))
        context.report(0, 1)
        with held(limits) if limits is not None and _own_process else nullcontext():
            arrays, meta = _function(runner)(piece.payload, context)
        store.put(piece.key, arrays, meta)
    except MergingError as error:
        with suppress(MergingError):  # what stopped the piece is the better message
            context.flush()
            if isinstance(error, StoppedError):
                context.flush_state()
            store.jobs.clear_progress([piece.key])
        raise
    except Exception as error:
        asked = legible(piece.payload, most=200, lines=False)
        log.error(
            "%s ended unexpectedly on %s\n%s", runner, asked, legible(format_exc(), most=_LOGGED)
        )
        with suppress(MergingError):
            store.jobs.clear_progress([piece.key])
        if limits is not None and is_out_of_memory(error):
            raise ComputeError(limits.large) from None
        raise ComputeError(in_words(error)) from None
    finally:
        _give_back_memory()


def _give_back_memory() -> None:
    """Return to the system what a large piece left over.

    Workers keep freed memory for speed (see `cluster`), but a convolutional network's statistics
    may leave hundreds of megabytes that no later piece needs.
    """
    if psutil.Process().memory_info().rss > _KEPT_BYTES:
        with suppress(AttributeError, OSError):  # only glibc has it
            ctypes.CDLL(None).malloc_trim(0)


def _function(runner: str) -> Callable[[str, Context], tuple[dict[str, np.ndarray], dict]]:
    module, _, name = runner.partition(":")
    return getattr(importlib.import_module(module), name)


def in_words(error: BaseException) -> str:
    """Return what a person reads when an error ended a piece, a job or the service."""
    if isinstance(error, MergingError):
        return str(error)
    if type(error).__name__ == "KilledWorker":
        return ENDED_TWICE
    if is_out_of_memory(error):
        return "there was not enough memory; ask for less at once, or use smaller models"
    return f"this ended with an unexpected {type(error).__name__}: {error}"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory was refused; torch has no class for that."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(words in said for words in _OUT_OF_MEMORY)


def dask_setup(worker: object) -> None:  # noqa: ARG001  (Dask calls it so)
    """Let a starting local worker yield to the interface, and load its libraries meanwhile.

    A process that is prepared so runs one piece at a time, and may be held to a piece's limits.
    """
    global _own_process
    _own_process = True
    if hasattr(os, "nice"):
        os.nice(5)
    if module := os.environ.get("ONE_BASIN_PRELOAD"):
        threading.Thread(target=importlib.import_module, args=[module], daemon=True).start()
