"""Who follows which job: who asked for it, or looked how it stands, not long ago."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from merging.results.compute.job import Job

FOLLOWED_SECONDS = 90.0  # a browser lets pages in the background ask once a minute


class Audience:
    """Remembers for every job when each owner last looked; any thread may use it.

    Args:
        clock: Returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[str, dict[str, float]] = {}
        self._left: set[tuple[str, str]] = set()

    def ask(self, job: Job, owner: str) -> None:
        """Note that somebody asks for a job, and so for what it needs."""
        with self._lock:
            for key in _family(job):
                self._left.discard((key, owner))
                self._seen.setdefault(key, {})[owner] = self._clock()

    def look(self, job: Job, owner: str) -> None:
        """Note that somebody looks how a job stands that was asked for, unless they left it."""
        with self._lock:
            for key in _family(job) & self._seen.keys():
                if (key, owner) not in self._left:
                    self._seen[key][owner] = self._clock()

    def leave(self, keys: Iterable[str], owner: str) -> None:
        """Note that somebody does not want jobs any more that go on for others."""
        with self._lock:
            for key in keys:
                self._left.add((key, owner))
                self._seen.get(key, {}).pop(owner, None)

    def has_left(self, key: str, owner: str) -> bool:
        """Return whether a job goes on for others only."""
        return (key, owner) in self._left

    def followers(self, key: str) -> frozenset[str]:
        """Return who follows a job now."""
        with self._lock:
            seen, now = self._seen.get(key, {}), self._clock()
            return frozenset(o for o, at in seen.items() if now - at <= FOLLOWED_SECONDS)

    def owners(self, key: str) -> frozenset[str]:
        """Return who follows a job; if nobody does any more, who did so last."""
        with self._lock:
            seen = self._seen.get(key, {})
            last = sorted(seen, key=seen.__getitem__)[-1:]
        return self.followers(key) or frozenset(last)

    def unseen(self, key: str) -> float:
        """Return the seconds since anybody looked at a job; infinity if nobody ever did."""
        with self._lock:
            times = self._seen.get(key, {}).values()
            return self._clock() - max(times, default=-float("inf"))

    def forget(self, key: str) -> None:
        """Forget a job that ended."""
        with self._lock:
            self._seen.pop(key, None)
            self._left = {(other, owner) for other, owner in self._left if other != key}


def _family(job: Job) -> set[str]:
    return {job.key}.union(*map(_family, job.needs))
