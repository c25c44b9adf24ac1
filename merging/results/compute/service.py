"""Where pieces of jobs are asked for, and how they stand.

A `Service` answers at once. One thread of its own (the conductor) talks to Dask; what anybody may
want to know is in the store, so status costs no round trip and survives every process. Each piece
is one Dask task, and what it found is in the store before the task ends. `python -m
merging.results.compute.service` is the local process that a service starts.
"""

from __future__ import annotations

import atexit
import sys
import threading
import time
from pathlib import Path

from merging.results.compute.conductor import Conductor
from merging.results.compute.job import ACTIVE, Job, JobState, Piece, Status
from merging.results.compute.job_index import JobRecord
from merging.results.compute.processes import find_process, this_process
from merging.results.compute.run_piece import Context
from merging.results.compute.store import Store
from merging.schema.errors import ComputeError

__all__ = ["ACTIVE", "Context", "Job", "Piece", "Service", "Status", "service"]


class Service:
    """Runs jobs, and says how they stand.

    Args:
        store: Where results and job records are kept.
        address: A Dask scheduler to use; else `$DASK_SCHEDULER_ADDRESS`, else a local process
            of `$ONE_BASIN_WORKERS` workers (else one for each core, as memory allows) that is
            started when it is first needed. Its workers must see the store's folder.
        preload: A module that local workers import as soon as they are up.
    """

    def __init__(self, store: Store, address: str | None = None, *, preload: str = ""):
        self.store = store
        self._me = this_process()
        for record in store.jobs.records(*ACTIVE):
            if find_process(record.process) is None:
                store.jobs.update(record.key, record.process, state="interrupted")
        self._conductor = Conductor(store, self._me, address, preload)

    def submit(self, job: Job, owner: str = "") -> None:
        """Ask for a job, which is not new if it is there or under way; also how to resume one.

        Args:
            job: What to compute.
            owner: Who asks; owners take turns, and one's stop leaves what others follow.

        Raises:
            ComputeError: If the service was closed.
        """
        if not self._conductor.running:
            raise ComputeError("the compute service was closed; restart the app")
        record = self.store.jobs.record(job.key)
        if not (record and record.state in ACTIVE and record.process == self._me):
            present = self.store.has(piece.key for piece in job.pieces)
            if len(present) == len({piece.key for piece in job.pieces}):
                return
            self._conductor.records.queue(job, owner, len(present))
        self._conductor.submit(job, owner)

    def stop(self, job: Job, owner: str = "") -> None:
        """Stop a job, the jobs it needs that nobody else does, and the owner's that need it.

        What is finished stays. A job that somebody else follows, or needs, goes on.

        Args:
            job: What to stop.
            owner: Who says so.
        """
        self._conductor.stop(job, owner)

    def warm_up(self) -> None:
        """Start the compute process now, so that the first job need not wait for it."""
        self._conductor.warm_up()

    def status(self, job: Job, owner: str = "") -> Status:
        """Return how a job stands; costs a few reads of the store's index.

        Who looks follows the job: one that nobody follows waits behind all others.

        Args:
            job: As it was submitted, or would be.
            owner: Who looks.

        Returns:
            Its state, progress and time.
        """
        keys = {piece.key for piece in job.pieces}
        record = self.store.jobs.record(job.key)  # before `has`: a job is done after its last piece
        present = self.store.has(keys)
        seconds = _seconds(record)
        if len(present) == len(keys):
            return Status(JobState.DONE, len(keys), len(keys), seconds=seconds)
        error = self._conductor.records.trouble(job.key)
        if error is not None:
            return Status(JobState.FAILED, len(present), len(keys), error=error, seconds=seconds)
        if record is None or record.state == "done":  # or room was made since
            return Status(JobState.MISSING, len(present), len(keys))
        if record.state in ACTIVE and (record.process == self._me or find_process(record.process)):
            self._conductor.audience.look(job, owner)
            return self._under_way(job, owner, record, keys - present, len(present))
        state = JobState.INTERRUPTED if record.state in ACTIVE else JobState(record.state)
        return Status(
            state=state,
            done=len(present),
            total=len(keys),
            note="",
            error=record.error,
            seconds=seconds,
        )

    def close(self) -> None:
        """End the compute process; jobs under way become interrupted."""
        self._conductor.close()

    def _under_way(
        self, job: Job, owner: str, record: JobRecord, missing: set[str], present: int
    ) -> Status:
        running = self.store.jobs.progress(missing)
        done = present + sum(min(1.0, piece.done / piece.total) for piece in running.values())
        note = next((piece.note for piece in running.values() if piece.note), record.note)
        if not running and record.state == "queued":
            note = self._waits_for(job, owner) or note
        note = self._conductor.note(job.key, owner) or note
        eta = None
        if record.started is not None and done > record.base:
            rate = (done - record.base) / max(time.time() - record.started, 1e-3)
            eta = (present + len(missing) - done) / rate
        total = present + len(missing)
        return Status(
            state=JobState(record.state),
            done=done,
            total=total,
            note=note,
            error=None,
            seconds=_seconds(record),
            eta=eta,
        )

    def _waits_for(self, job: Job, owner: str) -> str:
        for need in job.needs:
            status = self.status(need, owner)
            if status.state in ACTIVE:
                return f"First: {need.title}" + (f" ({status.note})" if status.note else "")
        return ""


def _seconds(record: JobRecord | None) -> float:
    if record is None:
        return 0.0
    return (time.time() if record.state in ACTIVE else record.updated) - record.submitted


_lock = threading.Lock()
_services: dict[Path, Service] = {}


def service(store: Store, address: str | None = None, *, preload: str = "") -> Service:
    """Return this process's service for a store; it is closed when the process ends.

    Args:
        store: Where results are kept.
        address: As for `Service`; counts when it is made.
        preload: As for `Service`; counts when it is made.

    Returns:
        The same service for every store on the same folder.
    """
    with _lock:
        if store.folder not in _services:
            _services[store.folder] = made = Service(store, address, preload=preload)
            atexit.register(made.close)
        return _services[store.folder]


if __name__ == "__main__":
    from merging.results.compute.cluster import main

    main(sys.argv[1:])
