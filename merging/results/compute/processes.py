"""Processes: what records call them, and what a piece may take in one.

Limits hold where the system has them (`resource`); what it lacks is watched from outside, see
`merging.results.compute.flights`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]

_SECONDS, _QUICK_SECONDS = 1800.0, 120.0
_LEAST_BYTES, _MOST_BYTES = 1 << 29, 8 << 30
_GRACE_SECONDS = 10.0  # who watches from outside ends a piece first, and says why


@dataclass(frozen=True)
class Limits:
    """What one piece may take.

    Attributes:
        seconds: Processor time.
        bytes: Memory, beyond what its process held before.
    """

    seconds: float
    bytes: int

    @property
    def late(self) -> str:
        """What a person reads who asked for more time."""
        return (
            f"this took more than {self.seconds:.0f} s of processor time, the limit for what was "
            "uploaded; use a smaller model or fewer examples, or have whoever runs this server "
            "raise ONE_BASIN_PIECE_SECONDS"
        )

    @property
    def large(self) -> str:
        """What a person reads who asked for more memory."""
        return (
            f"this needed more than {self.bytes / 2**30:.1f} GB of memory, the limit for what was "
            "uploaded; use a smaller model or fewer examples, or have whoever runs this server "
            "raise ONE_BASIN_PIECE_GB"
        )


def limits_of_uploads(*, quick: bool) -> Limits:
    """Return what a piece may take that anything uploaded is in.

    Args:
        quick: Whether it only looks at what was uploaded.

    Returns:
        `$ONE_BASIN_PIECE_SECONDS` of processor time (else half an hour; two minutes of looking at
        the most) and `$ONE_BASIN_PIECE_GB` of memory (else what the machine has for each worker,
        8 at the most).
    """
    seconds = _setting("ONE_BASIN_PIECE_SECONDS") or _SECONDS
    asked = _setting("ONE_BASIN_PIECE_GB")
    share = psutil.virtual_memory().total // ((os.cpu_count() or 1) + 1)
    usual = min(_MOST_BYTES, max(_LEAST_BYTES, share))
    return Limits(min(seconds, _QUICK_SECONDS) if quick else seconds, int(asked * 2**30) or usual)


def _setting(name: str) -> float:
    try:
        given = float(os.environ.get(name, ""))
    except ValueError:
        return 0.0
    return given if 0 < given < float("inf") else 0.0


def this_process() -> str:
    """Return what records call this process: host, number and time of birth."""
    return f"{socket.gethostname()}/{os.getpid()}/{psutil.Process().create_time():.0f}"


def find_process(name: str) -> psutil.Process | None:
    """Return the process of a name of `this_process`, or None if it does not run on this machine.

    Args:
        name: Host, number and time of birth; anything else is nobody's name.
    """
    try:
        host, pid, born = name.rsplit("/", 2)
        process = psutil.Process(int(pid))
        same = abs(process.create_time() - float(born)) < 5
    except (ValueError, psutil.Error):
        return None
    return process if same and host == socket.gethostname() else None


def processor_seconds(process: psutil.Process) -> float:
    """Return the processor time that a process took so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def held(limits: Limits) -> Iterator[None]:
    """Hold this process to limits for a while, as far as its system can.

    Memory beyond them is refused to whoever asks for it; beyond the time the process is ended.

    Yields:
        Nothing.
    """
    if resource is None:
        yield
        return
    process = psutil.Process()
    memory = getattr(process.memory_info(), "data", 0) + limits.bytes
    seconds = processor_seconds(process) + limits.seconds + _GRACE_SECONDS
    _lower(resource.RLIMIT_DATA, memory)
    _lower(resource.RLIMIT_CPU, int(seconds) + 1)
    try:
        yield
    finally:
        for kind in (resource.RLIMIT_DATA, resource.RLIMIT_CPU):
            hard = resource.getrlimit(kind)[1]
            _set(kind, hard, hard)


def _lower(kind: int, wanted: int) -> None:
    hard = resource.getrlimit(kind)[1]
    _set(kind, wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)


def _set(kind: int, soft: int, hard: int) -> None:
    with suppress(ValueError, OSError):  # a system that has no such limit
        resource.setrlimit(kind, (soft, hard))
