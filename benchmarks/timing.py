"""Alternating repetitions of two ways to do one thing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def seconds(run: Callable[[], object]) -> float:
    """Return the wall-clock seconds of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compare(
    ours: Callable[[], object], theirs: Callable[[], object], repetitions: int
) -> tuple[float, float, float]:
    """Return the median seconds of both, and of theirs / ours pair by pair, after a warm-up."""
    seconds(ours), seconds(theirs)
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(repetitions)]
    ratio = statistics.median(b / a for a, b in pairs)
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs), ratio
