"""Pieces that workers have: how they are sent, watched, come back, and are ended.

A piece that is asked to stop has a moment to do so by itself. Then its process is ended, which
Dask replaces; so is the process of a piece that took more than its limits. Only processes that
this app started are ended.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from merging.results.compute.job_index import PieceProgress
from merging.results.compute.processes import Limits, processor_seconds
from merging.results.compute.run_piece import ENDED_TWICE, Place, run_piece
from merging.results.compute.store import Store
from merging.results.compute.turns import Flight, Turn, is_last
from merging.schema.errors import ComputeError, MergingError

if TYPE_CHECKING:
    from distributed import Client, Future

    from merging.results.compute.cluster import OtherCluster, OwnCluster

_GRACE_SECONDS = 1.0  # how long a piece may take to stop by itself
_LOOK_SECONDS = 0.25  # how often limits are looked at
_WORKERS_SECONDS = 0.5  # how often Dask is asked for its workers
_CALL_SECONDS = 5.0
_RESTART_SECONDS = 20.0  # so long a worker may be missing whose process was ended
_AT_REST = 1 << 29  # bytes that a worker holds between pieces

log = logging.getLogger(__name__)


class FallenError(ComputeError):
    """The worker of a piece died; it may be sent again."""


@dataclass(eq=False)
class _Sent(Flight):
    """A piece that Dask has.

    Attributes:
        future: Dask's.
        worker: The address of its worker.
        until: When its process is ended, once it was asked to stop.
    """

    future: Future | None = None
    worker: str = ""
    until: float = 0.0


class Flights:
    """The pieces that workers have; used by the conductor's thread alone.

    Args:
        store: Where workers keep what they find.

    Attributes:
        flying: Pieces that workers have, by key.
        leaving: Pieces that were asked to stop and still run, by key.
        workers: How many pieces all workers can have at once, when those are back that restart.
    """

    def __init__(self, store: Store) -> None:
        self.flying: dict[str, _Sent] = {}
        self.leaving: dict[str, _Sent] = {}
        self.workers = 0
        self._store = store
        self._place = Place(store.folder, store.limit_bytes, store.bundled)
        self._digest = hashlib.sha256(str(store.folder).encode()).hexdigest()[:8]
        self._client: Client | None = None
        self._cluster: OwnCluster | OtherCluster | None = None
        self._known: dict[str, int] = {}
        self._known_due = self._known_at = self._look_due = 0.0
        self._ended_at = -_RESTART_SECONDS
        self._deaths: dict[str, int] = {}

    def board(self, client: Client, cluster: OwnCluster | OtherCluster) -> None:
        """Use a cluster from now on."""
        self._client, self._cluster = client, cluster
        self._known_due = 0.0

    def crash(self) -> None:
        """Forget all pieces: the cluster is gone."""
        self.flying.clear()
        self.leaving.clear()
        self._known.clear()
        self._client = self._cluster = None

    def free_worker(self) -> str:
        """Return the address of a worker that has no piece; empty if there is none."""
        self._count_workers()
        taken = [sent.worker for sent in (*self.flying.values(), *self.leaving.values())]
        free = (name for name, threads in self._known.items() if taken.count(name) < threads)
        return next(free, "")

    @property
    def all_there(self) -> bool:
        """Whether no worker is about to be free, or to come back."""
        return not self.leaving and sum(self._known.values()) >= self.workers

    def _count_workers(self) -> None:
        """Ask Dask now and then for its workers, of which some may be on their way back."""
        now = time.monotonic()
        if self._client is None or now < self._known_due:
            return
        self._known_due = now + _WORKERS_SECONDS
        with suppress(asyncio.TimeoutError, OSError):  # what was known holds till then
            ask = self._client.scheduler.ncores
            self._known = dict(self._client.sync(ask, callback_timeout=_CALL_SECONDS))
            self._known_at = now
        most = self.workers if now - self._ended_at < _RESTART_SECONDS else 0
        self.workers = max(most, sum(self._known.values()))

    def send(self, turn: Turn, worker: str) -> None:
        """Send a piece to a worker that has none."""
        assert self._client is not None
        assert self._cluster is not None
        job, (rank, piece) = turn.live.job, turn.live.waiting[turn.key]
        self._store.jobs.clear_progress([piece.key])
        future = self._client.submit(
            run_piece,
            job.runner,
            piece,
            job.key,
            self._place,
            job.limits,
            key=f"piece-{piece.key}-{self._digest}",
            priority=-rank,  # where others use the same cluster
            workers=[worker],
            allow_other_workers=self._cluster.shared,  # two services may have sent the same piece
        )
        last = is_last(self.flying.values(), self.workers)
        self.flying[piece.key] = _Sent(
            turn=turn, began=time.monotonic(), last=last, future=future, worker=worker
        )

    def landed(self) -> list[tuple[str, BaseException | None]] | None:
        """Return what came back, with errors; None if the cluster let go of pieces: it is gone.

        Asking is free, while callbacks trouble a process that ends.
        """
        self._count_workers()
        found: list[tuple[str, BaseException | None]] = []
        for pieces in (self.flying, self.leaving):
            for key, sent in list(pieces.items()):
                assert sent.future is not None
                if sent.future.cancelled():  # never by us: nobody is there
                    return None
                if not sent.future.done():
                    continue
                error = sent.future.exception()
                del pieces[key]
                self._release([sent])
                self._deaths.pop(key, None)
                if pieces is self.flying or error is None:
                    found.append((key, error))
        return found + self._fallen()

    def _fallen(self) -> list[tuple[str, BaseException | None]]:
        """Return pieces whose workers died by themselves: the first time to be sent again."""
        found: list[tuple[str, BaseException | None]] = []
        for pieces in (self.flying, self.leaving):
            for key, sent in list(pieces.items()):
                if sent.worker in self._known or sent.began > self._known_at:
                    continue
                del pieces[key]
                self._store.jobs.set_aside([key])
                self._release([sent])
                if pieces is self.flying:
                    self._deaths[key] = self._deaths.get(key, 0) + 1
                    twice = self._deaths[key] > 1
                    found.append((key, ComputeError(ENDED_TWICE) if twice else FallenError()))
        return found

    def end(self, keys: Iterable[str]) -> set[str]:
        """Have pieces stopped that nobody wants now.

        Args:
            keys: Pieces that workers have.

        Returns:
            Those that still run, and are in `leaving` for as long as they do.
        """
        ended = {key: self.flying.pop(key) for key in keys}
        begun: Iterable[str] = ended  # without the store nobody knows
        with suppress(MergingError):
            self._store.jobs.request_stop(ended)
            begun = self._store.jobs.progress(ended)
        until = time.monotonic() + _GRACE_SECONDS
        for key in begun:
            ended[key].until = until
            self.leaving[key] = ended[key]
        self._release([sent for key, sent in ended.items() if key not in begun])
        return set(begun)

    def tend(self) -> list[tuple[str, ComputeError]]:
        """End processes whose piece did not stop, or took more than its limits.

        Returns:
            The pieces that took too much, and what to say of them.
        """
        now = time.monotonic()
        if now < self._look_due or self._cluster is None:
            return []
        self._look_due = now + _LOOK_SECONDS
        late = [key for key, sent in self.leaving.items() if now >= sent.until]
        limited = {k: s.turn.live.job.limits for k, s in self.flying.items()}
        wanted = [*late, *(key for key, limits in limited.items() if limits is not None)]
        if not wanted:
            return []
        found: list[tuple[str, ComputeError]] = []
        for key, progress in self._store.jobs.progress(wanted).items():
            process = self._cluster.process(progress.worker)
            if process is None:
                continue  # it ended by itself, or is not ours to end
            limits = limited.get(key)
            excess = "" if limits is None else _excess(limits, progress, process)
            if key in self.leaving or excess:
                self._kill(key, process)
            if excess:
                found.append((key, ComputeError(excess)))
        return found

    def _kill(self, key: str, process: psutil.Process) -> None:
        """End the process of a piece; Dask must neither wait for it nor try it again."""
        sent = self.leaving.pop(key, None) or self.flying.pop(key)
        log.warning("The process of piece %s is ended", key[:8])
        self._store.jobs.set_aside([key])  # should Dask have sent it anew meanwhile
        self._release([sent])
        with suppress(psutil.Error):
            process.kill()
        self._known.pop(sent.worker, None)
        self._ended_at = time.monotonic()
        self._known_due = self._ended_at + _WORKERS_SECONDS  # till then it may still be listed

    def _release(self, pieces: list[_Sent]) -> None:
        """Let Dask forget pieces, so that nothing piles up and they can be asked for again.

        Not by `cancel`: its echo would hit the same piece when it is sent again at once.
        """
        for sent in pieces:
            if sent.future is not None:
                sent.future.release()
        if pieces and self._client is not None:
            with suppress(Exception):  # without a connection there is nothing to forget
                wait = _CALL_SECONDS
                self._client.sync(asyncio.sleep, 0, callback_timeout=wait)  # releases come before


def _excess(limits: Limits, progress: PieceProgress, process: psutil.Process) -> str:
    """Say what a piece took more of than it may; nothing if it did not."""
    try:
        if processor_seconds(process) - progress.used > limits.seconds:
            return limits.late
        if process.memory_info().rss > limits.bytes + _AT_REST:
            return limits.large
    except psutil.Error:
        pass  # it ended meanwhile
    return ""
