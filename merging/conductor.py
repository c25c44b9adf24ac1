"""Who keeps the cluster busy: one thread that sends pieces, takes what comes back, and says so.

The conductor alone talks to Dask; what others ask of it waits in a queue for its turn.
A job that it took is live until its last piece is in the store; when the cluster is lost, what was
under way is sent to the next one, once.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from merging.cluster import OtherCluster, OwnCluster
from merging.errors import MergingError, StoppedError
from merging.jobs import Job, Piece, Place, in_words, run_piece
from merging.store import Store

if TYPE_CHECKING:
    from distributed import Client, Future

_WINDOW = 64  # pieces of a job that Dask holds at a time

log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Live:
    """A job under way, as the conductor sees it: its pieces that are not in the store."""

    job: Job
    asked: bool
    waiting: dict[str, tuple[int, Piece]]
    sent: dict[str, tuple[int, Piece]] = field(default_factory=dict)
    sent_again: bool = False

    def misses(self, key: str) -> bool:
        return key in self.sent or key in self.waiting


class Conductor:
    """Runs jobs on a cluster, and writes how they stand.

    Args:
        store: Where results and job records are kept.
        process: What the records call this process.
        address: As for `Service`.
        preload: As for `Service`.
    """

    def __init__(self, store: Store, process: str, address: str | None, preload: str):
        self._store = store
        self._process = process
        self._address = address or os.environ.get("DASK_SCHEDULER_ADDRESS")
        self._preload = preload
        self._place = Place(store.folder, store.limit_bytes, store.bundled)
        self._place_digest = hashlib.sha256(str(store.folder).encode()).hexdigest()[:8]
        self._messages: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._live: dict[str, _Live] = {}
        self._futures: dict[str, Future] = {}
        self._cluster: OwnCluster | OtherCluster | None = None
        self._client: Client | None = None
        self._unwritten: dict[str, str] = {}  # jobs that failed because the store cannot be written
        self._thread = threading.Thread(target=self._conduct, name="compute", daemon=True)
        self._thread.start()

    # Anybody may call these from any thread

    @property
    def running(self) -> bool:
        """Whether it was not closed."""
        return self._thread.is_alive()

    def submit(self, job: Job, owner: str) -> None:
        """Take a job, whose record says that it is queued."""
        self._unwritten.pop(job.key, None)
        self._messages.put(lambda: self._take(job, owner))

    def stop(self, job: Job) -> None:
        """Stop a job unless another one needs it, and what only it needs."""
        self._messages.put(lambda: self._stop(job, even_asked=True))

    def warm_up(self) -> None:
        """Start the cluster now."""
        self._messages.put(self._start)

    def trouble(self, key: str) -> str | None:
        """Return why a job failed whose record could not be written, else None."""
        return self._unwritten.get(key)

    def close(self) -> None:
        """End the cluster; jobs under way become interrupted."""
        self._messages.put(None)
        self._thread.join(timeout=15)

    def write_queued(self, job: Job, owner: str, present: int) -> None:
        """Write a job's record anew.

        Args:
            job: What is asked for.
            owner: Who asks.
            present: How many of its pieces are in the store.
        """
        self._store.write_job(
            job.key,
            title=job.title,
            state="queued",
            done=present,
            base=present,
            total=len(job.pieces),
            note="",
            error=None,
            owner=owner,
            process=self._process,
            submitted=time.time(),
            started=None,
        )

    # Only the conductor's thread calls what follows

    def _conduct(self) -> None:
        """Do what comes in, one thing after another, and keep the cluster busy."""
        while True:
            try:
                act = self._messages.get(timeout=0.05 if self._busy else 0.5)
            except queue.Empty:
                act = self._idle
            if act is None:
                break
            try:
                act()
                self._collect()
                self._tend()
                self._fill()
            except Exception as error:
                log.exception("The compute service is in trouble")
                self._lose(in_words(error))
        for live in list(self._live.values()):
            self._end(live, "interrupted", "the app was closed meanwhile; start the job again")
        self._drop_cluster()

    @property
    def _busy(self) -> bool:
        return bool(self._live) or (self._cluster is not None and self._client is None)

    def _idle(self) -> None:
        """Nothing came in."""

    def _take(self, job: Job, owner: str) -> None:
        try:
            self._accept(job, owner, asked=True)
        except MergingError as trouble:
            self._unwritten[job.key] = str(trouble)

    def _accept(self, job: Job, owner: str, asked: bool) -> None:
        for need in job.needs:
            self._accept(need, owner, asked=False)
        if job.key in self._live:
            self._live[job.key].asked |= asked
            return
        present = self._store.has(piece.key for piece in job.pieces)
        missing = {
            piece.key: (rank, piece)
            for rank, piece in enumerate(job.pieces)
            if piece.key not in present
        }
        if missing:
            self.write_queued(job, owner, len(present))
            self._live[job.key] = _Live(job, asked, missing)
        else:
            self._store.update_job(job.key, self._process, state="done")

    def _stop(self, job: Job, even_asked: bool) -> None:
        live = self._live.get(job.key)
        if live is None or (live.asked and not even_asked):
            return
        if any(job.key in _keys(other.job.needs) for other in self._live.values()):
            live.asked = False  # goes on for those who need it, and stops with them
            return
        self._end(live, "stopped")
        for need in job.needs:
            self._stop(need, even_asked=False)

    def _start(self) -> None:
        if self._cluster is None and self._address:
            self._cluster = OtherCluster(self._address)
        elif self._cluster is None:
            self._cluster = OwnCluster(self._store, self._preload)

    def _tend(self) -> None:
        """Start the cluster when it is needed, and again if it is gone."""
        if self._live:
            self._start()
        if self._cluster is None:
            return
        if not self._cluster.alive():
            log.warning("The compute process is gone")
            self._lose(self._cluster.lost)
        elif self._client is None:
            try:
                self._client = self._cluster.connect()
            except (OSError, ValueError) as error:
                log.warning("No connection to the cluster: %s", error)
                self._lose(self._cluster.lost)

    def _lose(self, reason: str) -> None:
        """Forget the cluster; what was under way is sent to the next one, once."""
        self._futures.clear()
        self._drop_cluster()
        for live in list(self._live.values()):
            self._again(live, reason)

    def _drop_cluster(self) -> None:
        client, self._client = self._client, None
        cluster, self._cluster = self._cluster, None
        if client is not None:
            with suppress(Exception):  # it may be in any state, and nobody needs it any more
                client.close(timeout=1)
        if cluster is not None:
            cluster.end()

    def _fill(self) -> None:
        """Send Dask more pieces of the jobs that need not wait for others."""
        if self._client is None:
            return
        for live in self._live.values():
            if any(need.key in self._live for need in live.job.needs):
                continue
            keys = list(live.waiting)[: _WINDOW - len(live.sent)]
            new = [key for key in keys if key not in self._futures]
            if new:
                self._store.clear_progress(new)
            live.sent |= {key: live.waiting.pop(key) for key in keys}
            for key in new:
                self._send(live.job, *live.sent[key])

    def _send(self, job: Job, rank: int, piece: Piece) -> None:
        assert self._client is not None
        self._futures[piece.key] = self._client.submit(
            run_piece,
            job.runner,
            piece,
            job.key,
            self._place,
            key=f"piece-{piece.key}-{self._place_digest}",
            priority=-rank,  # the first pieces of a new job go before the last of an old one
        )

    def _collect(self) -> None:
        """Look what came back; asking is free, while callbacks trouble a process that ends."""
        for key, future in list(self._futures.items()):
            if future.cancelled() and self._cluster is not None:  # never by us: nobody is there
                self._lose(self._cluster.lost)
                return
            if future.done() and self._futures.get(key) is future:  # not dropped meanwhile
                self._ended(key, self._futures.pop(key))

    def _ended(self, key: str, future: Future) -> None:
        error = future.exception()
        self._forget([future])
        for live in [live for live in self._live.values() if live.misses(key)]:
            if live.job.key not in self._live:
                continue  # failed with one that it needs
            if error is None:
                self._advance(live, key)
            elif isinstance(error, StoppedError):  # asked by another process, or just before
                self._again(live, str(error))
            else:
                self._end(live, "failed", in_words(error))

    def _advance(self, live: _Live, key: str) -> None:
        live.sent.pop(key, None)
        live.waiting.pop(key, None)
        if live.sent or live.waiting:
            done = len(live.job.pieces) - len(live.sent) - len(live.waiting)
            self._record(live, state="running", done=done)
        elif self._store.has(_keys(live.job.pieces)) == _keys(live.job.pieces):
            self._end(live, "done")
        else:
            self._end(
                live,
                "failed",
                f"the results are not in {self._store.folder}; the workers must see that folder, "
                "and it must have room for all pieces of a job",
            )

    def _again(self, live: _Live, reason: str) -> None:
        """Send once more what did not come back; the second time the job is interrupted."""
        if live.sent_again:
            self._end(live, "interrupted", reason)
            return
        live.sent_again = True
        lost = {key: sent for key, sent in live.sent.items() if key not in self._futures}
        live.sent = {key: sent for key, sent in live.sent.items() if key in self._futures}
        live.waiting = lost | live.waiting

    def _end(self, live: _Live, state: str, error: str | None = None) -> None:
        """Take leave of a job; without success, also of those that need it."""
        if self._live.pop(live.job.key, None) is None:
            return
        unwanted = [
            key
            for key in live.sent
            if key in self._futures and not any(o.misses(key) for o in self._live.values())
        ]
        fields = {"done": len(live.job.pieces)} if state == "done" else {}
        trouble = self._record(live, state=state, error=error, **fields)
        if trouble and state != "done":
            self._unwritten[live.job.key] = error or trouble
        with suppress(MergingError):  # then they run to their ends
            self._store.request_stop(unwanted)
        self._forget([self._futures.pop(key) for key in unwanted])
        if state != "done":
            for other in list(self._live.values()):
                if live.job.key in _keys(other.job.needs):
                    self._end(other, state, error)

    def _record(self, live: _Live, **fields: float | str | None) -> str:
        """Write a job's record, and return what kept the store from it, or nothing."""
        try:
            self._store.update_job(live.job.key, self._process, **fields)
        except MergingError as trouble:
            log.warning("How a job stands is not on record: %s", trouble)
            return str(trouble)
        return ""

    def _forget(self, futures: list[Future]) -> None:
        """Let Dask forget pieces, so that nothing piles up and they can be asked for again.

        Not by `cancel`: its echo would hit the same piece when it is sent again at once.
        """
        for future in futures:
            future.release()
        if futures and self._client is not None:
            with suppress(Exception):  # without a connection there is nothing to forget
                self._client.sync(asyncio.sleep, 0, callback_timeout=5)  # releases come before


def _keys(things: Iterable[Piece | Job]) -> set[str]:
    return {thing.key for thing in things}
