"""Whose turn it is: which piece is sent next, and which one has to make room for another's first.

Owners take turns, whatever each of them asked for. A job that nobody follows waits behind all that
somebody does. The last free worker is kept for owners who have none; a piece that stays there for
long is put back when the next such owner waits, and then competes for the other workers, where it
has longer every time. So a first piece waits for seconds, and every piece ends at last.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from merging.results.compute.audience import FOLLOWED_SECONDS, Audience
from merging.results.compute.job import Job, Piece

PATIENCE_SECONDS = 2.0  # how long a first piece waits before another one makes room
_SHORT_SECONDS = 5.0  # how long a piece may keep the last worker, and
_LONG_SECONDS = 60.0  # any other, before it has to make room; each time it gets
_LONGER = 4  # times as long
_OWNERS = 1000  # so many are remembered


@dataclass(eq=False)
class Live:
    """A job under way: its pieces that are not in the store.

    Attributes:
        job: The job.
        asked: Whether somebody asked for it, and not only for what needs it.
        waiting: Pieces to be sent, by key, with their ranks.
        sent: Pieces that workers have.
        sent_again: Whether pieces were lost once.
        ready: When it began to wait for a worker while its owners had none, or None.
    """

    job: Job
    asked: bool
    waiting: dict[str, tuple[int, Piece]]
    sent: dict[str, tuple[int, Piece]] = field(default_factory=dict)
    sent_again: bool = False
    ready: float | None = None

    def misses(self, key: str) -> bool:
        """Return whether a piece is not there yet."""
        return key in self.sent or key in self.waiting


@dataclass(frozen=True)
class Turn:
    """A piece that could be sent next.

    Attributes:
        live: Its job.
        key: The piece.
        owner: On whose account.
        rank: Its place in its job.
    """

    live: Live
    key: str
    owner: str
    rank: int


@dataclass(eq=False)
class Flight:
    """A piece that a worker has.

    Attributes:
        turn: The piece.
        began: When it was sent.
        last: Whether it has the worker that is kept for owners who have none.
    """

    turn: Turn
    began: float
    last: bool = False


class Turns:
    """Decides; knows no cluster and no store.

    Args:
        audience: Who follows which job.
    """

    def __init__(self, audience: Audience) -> None:
        self._audience = audience
        self._count = 0
        self._served: dict[str, int] = {}
        self._evicted: dict[str, int] = {}

    def waiting(
        self, lives: Mapping[str, Live], flights: Collection[Flight], blocked: Collection[str]
    ) -> list[Turn]:
        """Return one piece of every job that could be sent, in the order of turns.

        Args:
            lives: All jobs under way, by key.
            flights: What workers have.
            blocked: Pieces that cannot be sent now.

        Returns:
            The next turn first.
        """
        load = self._load(flights)
        found = [
            self._turn(live, key, load)
            for live in lives.values()
            if not any(need.key in lives for need in live.job.needs)
            for key in _first(key for key in live.waiting if key not in blocked)
        ]
        return sorted(found, key=lambda turn: self._order(turn, load))

    def next(self, turns: list[Turn], flights: Collection[Flight], workers: int) -> Turn | None:
        """Return the piece to send to a free worker now, or None while none may be.

        Args:
            turns: As `waiting` returned them.
            flights: What workers have.
            workers: How many pieces they can have at once.
        """
        settle(flights, workers)
        if not is_last(flights, workers):
            return turns[0] if turns else None
        return next((turn for turn in turns if self._may_be_last(turn, flights)), None)

    def took(self, turn: Turn) -> None:
        """Note that a piece was sent."""
        self._count += 1
        self._served.pop(turn.owner, None)
        self._served[turn.owner] = self._count
        if len(self._served) > _OWNERS:
            del self._served[next(iter(self._served))]  # served longest ago
        turn.live.ready = None

    def forget(self, key: str) -> None:
        """Forget a piece that ended."""
        self._evicted.pop(key, None)

    def evict(
        self, turns: list[Turn], flights: Collection[Flight], workers: int, now: float
    ) -> Flight | None:
        """Return the piece that has to make room for somebody's first, if there is one.

        Args:
            turns: As `waiting` returned them; none of them may be sent now.
            flights: What workers have.
            workers: How many pieces they can have at once.
            now: Seconds, by the clock of `Flight.began`.

        Returns:
            A piece of another owner that had its time; it is noted that it was put back.
        """
        settle(flights, workers)
        load = self._load(flights)
        for turn in turns:
            patient = turn.live.ready is not None and now - turn.live.ready <= PATIENCE_SECONDS
            if load.get(turn.owner) or not self._followed(turn.live):
                turn.live.ready = None
            elif turn.live.ready is None:
                turn.live.ready = now
            elif not patient and (victim := self._victim(turn, flights, workers, now)):
                key = victim.turn.key
                self._evicted[key] = self._evicted.get(key, 0) + 1
                return victim
        return None

    def _victim(
        self, turn: Turn, flights: Collection[Flight], workers: int, now: float
    ) -> Flight | None:
        oldest = sorted(flights, key=lambda flight: flight.began)
        others = [f for f in oldest if f.turn.owner != turn.owner]
        left = [f for f in oldest if not self._followed(f.turn.live)]
        new = turn.key not in self._evicted
        last = [f for f in others if new and (f.last or workers == 1)]
        settled = [f for f in others if not new]
        for victims, seconds in (
            (left, _SHORT_SECONDS),
            (last, _SHORT_SECONDS),
            (settled, _LONG_SECONDS),
        ):
            for flight in victims:
                times = self._evicted.get(flight.turn.key, 0)
                if now - flight.began >= seconds * _LONGER**times:
                    return flight
        return None

    def _may_be_last(self, turn: Turn, flights: Collection[Flight]) -> bool:
        if turn.key in self._evicted or not self._followed(turn.live):
            return False
        own = [f for f in flights if f.turn.owner == turn.owner and self._followed(f.turn.live)]
        quick = turn.live.job.quick
        return not (any(flight.turn.live.job.quick for flight in own) if quick else own)

    def _turn(self, live: Live, key: str, load: Mapping[str, int]) -> Turn:
        owners = self._audience.owners(live.job.key) or {""}
        owner = min(owners, key=lambda o: (load.get(o, 0), self._served.get(o, 0), o))
        return Turn(live=live, key=key, owner=owner, rank=live.waiting[key][0])

    def _order(self, turn: Turn, load: Mapping[str, int]) -> tuple[float, ...]:
        live = turn.live
        return (
            not self._followed(live),
            load.get(turn.owner, 0),
            self._served.get(turn.owner, 0),
            not live.job.quick,
            turn.rank,  # the first pieces of a new job go before the last of an old one
        )

    def _load(self, flights: Collection[Flight]) -> dict[str, int]:
        load: dict[str, int] = {}
        for flight in flights:
            if self._followed(flight.turn.live):
                load[flight.turn.owner] = load.get(flight.turn.owner, 0) + 1
        return load

    def _followed(self, live: Live) -> bool:
        return self._audience.unseen(live.job.key) <= FOLLOWED_SECONDS


def settle(flights: Collection[Flight], workers: int) -> None:
    """Let pieces on the last worker count as others where others ended.

    Where a worker is gone, the piece that was sent last counts as on the last one.
    """
    ordered = sorted(flights, key=lambda flight: flight.began)
    for flight in ordered:
        if flight.last and not is_last(flights, workers):
            flight.last = False
    for flight in ordered[max(workers - 1, 0) :]:
        flight.last = workers > 1


def is_last(flights: Collection[Flight], workers: int) -> bool:
    """Return whether only the worker is left that is kept for owners who have none."""
    return 0 < workers - 1 <= sum(not flight.last for flight in flights)


def before(turns: list[Turn], owners: Callable[[str], Collection[str]]) -> dict[str, int]:
    """Return by job how many other owners have their turn before its own.

    Args:
        turns: In their order.
        owners: Returns who follows a job of that key.
    """
    passed: set[str] = set()
    found = {}
    for turn in turns:
        found[turn.live.job.key] = len(passed - set(owners(turn.live.job.key)))
        passed.add(turn.owner)
    return found


def _first(keys: Iterator[str]) -> list[str]:
    return [key for key in (next(keys, None),) if key is not None]
