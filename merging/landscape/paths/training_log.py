"""What training loops share: a history of losses, progress, and the step size over time."""

from __future__ import annotations

from merging.schema.progress import Progress

MOMENTUM = 0.9
_ENTRIES = 50  # of the history of a run


class TrainingLog:
    """Losses of steps, averaged over runs of them, and told to whoever watches.

    Args:
        on_progress: Called as `connect` calls it.
        total: Steps in all.
    """

    def __init__(self, on_progress: Progress | None, total: int) -> None:
        self.history: tuple[float, ...] = ()
        self.words = ""
        self._tell, self._total = on_progress, total
        self._done, self._run = 0, max(1, total // _ENTRIES)
        self._losses: list[float] = []

    def note(self, loss: float) -> bool:
        """Count a step with its loss; whether the history has a new entry.

        Raises:
            StoppedError: If the watcher raises it.
        """
        self._losses.append(loss)
        self._done += 1
        entry = len(self._losses) == self._run
        if entry:
            self.history = (*self.history, sum(self._losses) / self._run)
            self._losses = []
        if self._tell is not None:
            last = f": training loss {self.history[-1]:.4f}" if self.history else ""
            self._tell(
                self._done, self._total, f"{self.words}step {self._done:,} of {self._total:,}{last}"
            )
        return entry

    @property
    def settled(self) -> bool:
        """Whether the last fifth of the history is at most 2 % lower than the fifth before it."""
        fifth = len(self.history) // 5
        if not fifth:
            return False
        before, last = self.history[-2 * fifth : -fifth], self.history[-fifth:]
        return sum(last) >= 0.98 * sum(before)


def falling(share: float) -> float:
    """Return the factor of the step size: 1 for the first half, then down to a hundredth in a line.

    Example:
        >>> [round(falling(share), 3) for share in (0.25, 0.75, 1.0)]
        [1.0, 0.505, 0.01]
    """
    return 1.0 if share <= 0.5 else 1.0 - 0.99 * (2 * share - 1)
