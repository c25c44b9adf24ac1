"""Who keeps the cluster busy: one thread that sends pieces, takes what comes back, and says so.

The conductor alone talks to Dask; what others ask of it waits in a queue for its turn.
A job that it took is live until its last piece is in the store; when the cluster is lost, what was
under way is sent to the next one, once.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable

from merging.results.compute.audience import Audience
from merging.results.compute.connection import Connection
from merging.results.compute.flights import FallenError, Flights
from merging.results.compute.job import Job, Piece
from merging.results.compute.records import Records
from merging.results.compute.run_piece import in_words
from merging.results.compute.store import Store
from merging.results.compute.turns import Live, Turn, Turns, before
from merging.schema.errors import ComputeError, MergingError, StoppedError

DROPPED = (
    "nobody has looked at this for an hour, so it made room for others; what is finished is kept"
)

_DROPPED_SECONDS = 3600.0
_PLACES_SECONDS = 0.25  # how often the queue is looked through while nothing happens

log = logging.getLogger(__name__)


class Conductor:
    """Runs jobs on a cluster, and writes how they stand.

    Args:
        store: Where results and job records are kept.
        process: What the records call this process.
        address: As for `Service`.
        preload: As for `Service`.
    """

    def __init__(self, store: Store, process: str, address: str | None, preload: str):
        self.audience = Audience()
        self.records = Records(store, process)
        self._store = store
        self._messages: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._live: dict[str, Live] = {}
        self._parting: dict[str, tuple[Live, str | None, set[str]]] = {}  # until pieces have ended
        self._turns = Turns(self.audience)
        self._flights = Flights(store)
        self._places: dict[str, int] = {}
        self._places_due = 0.0
        self._connection = Connection(store, address, preload)
        self._thread = threading.Thread(target=self._conduct, name="compute", daemon=True)
        self._thread.start()

    # Anybody may call these from any thread

    @property
    def running(self) -> bool:
        """Whether it was not closed."""
        return self._thread.is_alive()

    def submit(self, job: Job, owner: str) -> None:
        """Take a job, whose record says that it is queued."""
        self.records.forget(job)
        self._messages.put(lambda: self._take(job, owner))

    def stop(self, job: Job, owner: str) -> None:
        """Stop a job, what only it needs, and what of the owner's needs it.

        What somebody else follows goes on for them.
        """
        self._messages.put(lambda: self._stop(job, owner))

    def note(self, key: str, owner: str) -> str:
        """Return what a person should know of a job under way beside its progress, or nothing."""
        if key in self._parting:
            return "stopping"
        if self.audience.has_left(key, owner):
            return "goes on, because somebody else is waiting for it"
        count = self._places.get(key, 0)
        if not count:
            return ""
        return f"waits for its turn: {count} other{'s have' if count > 1 else ' has'} theirs first"

    def warm_up(self) -> None:
        """Start the cluster now."""
        self._messages.put(self._connection.start)

    def close(self) -> None:
        """End the cluster; jobs under way become interrupted."""
        self._messages.put(None)
        self._thread.join(timeout=15)

    # Only the conductor's thread calls what follows

    def _conduct(self) -> None:
        """Do what comes in, one thing after another, and keep the cluster busy."""
        while True:
            try:
                act = self._messages.get(timeout=self._pause)
            except queue.Empty:
                act = self._idle
            if act is None:
                break
            try:
                act()
                if act != self._idle:
                    self._places_due = 0.0
                self._tend()  # first: whoever is asked must be there
                self._collect()
                self._fill()
            except Exception as error:
                log.exception("The compute service is in trouble")
                self._lose(in_words(error))
        for live in list(self._live.values()):
            self._end(live, "interrupted", "the app was closed meanwhile; start the job again")
        self._connection.drop()

    @property
    def _pause(self) -> float:
        """How long to wait for messages before looking what came back."""
        if self._flights.flying or self._flights.leaving:
            return 0.005
        return 0.05 if self._live or self._connection.coming_up else 0.5

    def _idle(self) -> None:
        """Nothing came in."""

    def _take(self, job: Job, owner: str) -> None:
        try:
            self.audience.ask(job, owner)
            self._accept(job, owner, asked=True)
        except MergingError as trouble:
            self.records.refuse(job, trouble)

    def _accept(self, job: Job, owner: str, asked: bool) -> None:
        for need in job.needs:
            self._accept(need, owner, asked=False)
        if job.key in self._live:
            self._live[job.key].asked |= asked
            return
        self._parting.pop(job.key, None)
        present = self._store.has(piece.key for piece in job.pieces)
        missing = {
            piece.key: (rank, piece)
            for rank, piece in enumerate(job.pieces)
            if piece.key not in present
        }
        if missing:
            self.records.queue(job, owner, len(present))
            self._live[job.key] = Live(job, asked, missing)
        else:
            self.records.write(job, state="done")

    def _stop(self, job: Job, owner: str) -> None:
        live = self._live.get(job.key)
        if live is None:
            return
        family = self._dependents(job.key)
        self.audience.leave(family, owner)
        unwanted = [key for key in family if not self.audience.followers(key)]
        for key in unwanted:
            if key in self._live:
                self._end(self._live[key], "stopped")
        if job.key not in unwanted:
            live.asked = False  # goes on for those who need it, and stops with them
            return
        for need in job.needs:
            self._stop_need(need)

    def _dependents(self, key: str) -> list[str]:
        """Return a live job and all that need it, these first."""
        found: dict[str, None] = {}
        for other in self._live.values():
            if key in _keys(other.job.needs):
                found |= dict.fromkeys(self._dependents(other.job.key))
        return [*found, key]

    def _stop_need(self, job: Job) -> None:
        """Stop what nobody asked for and no live job needs."""
        live = self._live.get(job.key)
        if live is None or live.asked or len(self._dependents(job.key)) > 1:
            return
        self._end(live, "stopped")
        for need in job.needs:
            self._stop_need(need)

    def _tend(self) -> None:
        """Start the cluster when it is needed, and again if it is gone."""
        if self._live:
            self._connection.start()
        try:
            connected = self._connection.tend()
        except ComputeError as gone:
            self._lose(str(gone))
            return
        client, cluster = self._connection.client, self._connection.cluster
        if connected and client is not None and cluster is not None:
            self._flights.board(client, cluster)
            self._places_due = 0.0

    def _lose(self, reason: str) -> None:
        """Forget the cluster; what was under way is sent to the next one, once."""
        self._flights.crash()
        self._connection.drop()
        for live in list(self._live.values()):
            self._again(live, reason)
        self._part()

    def _fill(self) -> None:
        """Give free workers the pieces whose turn it is, or have one make room for another."""
        if self._connection.client is None or not self._live:
            self._places = {}
            return
        now, flying = time.monotonic(), self._flights.flying
        if now < self._places_due:
            return
        self._places_due = now + _PLACES_SECONDS
        self._drop_forgotten()
        turns = self._waiting()
        while worker := self._flights.free_worker():
            turn = self._turns.next(turns, flying.values(), self._flights.workers)
            if turn is None:
                break
            self._send(turn, worker)
            turns = self._waiting()
        if self._flights.all_there:
            victim = self._turns.evict(turns, flying.values(), self._flights.workers, now)
            if victim is not None:
                self._put_back(victim.turn.key)
        self._places = before(turns, self.audience.owners)

    def _waiting(self) -> list[Turn]:
        blocked = self._flights.flying.keys() | self._flights.leaving.keys()
        return self._turns.waiting(self._live, self._flights.flying.values(), blocked)

    def _send(self, turn: Turn, worker: str) -> None:
        self._flights.send(turn, worker)
        self._turns.took(turn)
        for live in self._live.values():
            if turn.key in live.waiting:
                live.sent[turn.key] = live.waiting.pop(turn.key)

    def _put_back(self, key: str) -> None:
        log.info("Piece %s makes room for somebody's first", key[:8])
        self._flights.end([key])
        self._wait_again(key)

    def _wait_again(self, key: str) -> None:
        for live in self._live.values():
            if key in live.sent:
                live.waiting = {key: live.sent.pop(key)} | live.waiting

    def _drop_forgotten(self) -> None:
        """Stop jobs that nobody looks at any more."""
        for live in list(self._live.values()):
            if self.audience.unseen(live.job.key) > _DROPPED_SECONDS:
                self._end(live, "stopped", DROPPED)

    def _collect(self) -> None:
        """Look what came back, and what had to be ended."""
        landed = self._flights.landed()
        if landed is None:
            if self._connection.cluster is not None:
                self._lose(self._connection.cluster.lost)
            return
        for key, error in (*landed, *self._flights.tend()):
            self._ended(key, error)
            self._places_due = 0.0
        self._part()

    def _ended(self, key: str, error: BaseException | None) -> None:
        if isinstance(error, FallenError):
            self._wait_again(key)
            return
        self._turns.forget(key)
        for live in [live for live in self._live.values() if live.misses(key)]:
            if live.job.key not in self._live:
                continue  # failed with one that it needs
            if error is None:
                self._advance(live, key)
            elif isinstance(error, StoppedError):  # asked by another process, or just before
                self._again(live, str(error))
            else:
                self._end(live, "failed", in_words(error))

    def _part(self) -> None:
        """Say that jobs are stopped whose last pieces have ended."""
        for key, (live, error, pieces) in list(self._parting.items()):
            if not pieces & self._flights.leaving.keys():
                del self._parting[key]
                self.records.end(live.job, "stopped", error)

    def _advance(self, live: Live, key: str) -> None:
        live.sent.pop(key, None)
        live.waiting.pop(key, None)
        if live.sent or live.waiting:
            done = len(live.job.pieces) - len(live.sent) - len(live.waiting)
            self.records.write(live.job, state="running", done=done)
        elif self._store.has(_keys(live.job.pieces)) == _keys(live.job.pieces):
            self._end(live, "done")
        else:
            self._end(
                live,
                "failed",
                f"the results are not in {self._store.folder}; the workers must see that folder, "
                "and it must have room for all pieces of a job",
            )

    def _again(self, live: Live, reason: str) -> None:
        """Send once more what did not come back; the second time the job is interrupted."""
        if live.sent_again:
            self._end(live, "interrupted", reason)
            return
        live.sent_again = True
        flying = self._flights.flying
        lost = {key: sent for key, sent in live.sent.items() if key not in flying}
        live.sent = {key: sent for key, sent in live.sent.items() if key in flying}
        live.waiting = lost | live.waiting

    def _end(self, live: Live, state: str, error: str | None = None) -> None:
        """Take leave of a job; without success, also of those that need it."""
        if self._live.pop(live.job.key, None) is None:
            return
        unwanted = [
            key
            for key in (*live.sent, *live.waiting)
            if not any(other.misses(key) for other in self._live.values())
        ]
        for key in unwanted:
            self._turns.forget(key)
        self.audience.forget(live.job.key)
        left = self._flights.end(key for key in unwanted if key in self._flights.flying)
        left |= self._flights.leaving.keys() & set(unwanted)
        if state == "stopped" and left:
            self._parting[live.job.key] = live, error, left
        else:
            self.records.end(live.job, state, error)
        if state != "done":
            for other in list(self._live.values()):
                if live.job.key in _keys(other.job.needs):
                    self._end(other, state, error)


def _keys(things: Iterable[Piece | Job]) -> set[str]:
    return {thing.key for thing in things}
