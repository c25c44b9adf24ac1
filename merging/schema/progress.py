"""How long work says how far it is."""

from __future__ import annotations

from collections.abc import Callable

# Called with `(done, total, note)`; may raise `StoppedError`, which stops the work.
Progress = Callable[[float, float, str], None]


def ignore(*_: object) -> None:
    """Take what is reported, and do nothing with it."""
