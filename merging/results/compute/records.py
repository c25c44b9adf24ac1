"""How the jobs of this process stand: written to the store, or remembered where that fails."""

from __future__ import annotations

import logging
import time

from merging.results.compute.job import Job
from merging.results.compute.store import Store
from merging.schema.errors import MergingError

log = logging.getLogger(__name__)


class Records:
    """Writes the records of jobs that this process answers for; any thread may use it.

    Args:
        store: Where they are kept.
        process: What they call this process.
    """

    def __init__(self, store: Store, process: str) -> None:
        self._jobs = store.jobs
        self._process = process
        self._unwritten: dict[str, str] = {}  # jobs that failed because the store cannot be written

    def queue(self, job: Job, owner: str, present: int) -> None:
        """Write a job's record anew.

        Args:
            job: What is asked for.
            owner: Who asks.
            present: How many of its pieces are in the store.
        """
        self._jobs.write(
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

    def write(self, job: Job, **fields: float | str | None) -> str:
        """Write how a job stands, and return what kept the store from it, or nothing."""
        try:
            self._jobs.update(job.key, self._process, **fields)
        except MergingError as trouble:
            log.warning("How a job stands is not on record: %s", trouble)
            return str(trouble)
        return ""

    def end(self, job: Job, state: str, error: str | None) -> None:
        """Write that a job ended; where that fails, remember why."""
        fields = {"done": len(job.pieces)} if state == "done" else {}
        trouble = self.write(job, state=state, error=error, **fields)
        if trouble and state != "done":
            self._unwritten[job.key] = error or trouble

    def refuse(self, job: Job, trouble: MergingError) -> None:
        """Remember why a job failed that could not be taken."""
        self._unwritten[job.key] = str(trouble)

    def forget(self, job: Job) -> None:
        """Forget why a job failed that is asked for again."""
        self._unwritten.pop(job.key, None)

    def trouble(self, key: str) -> str | None:
        """Return why a job failed whose record could not be written, else None."""
        return self._unwritten.get(key)
