"""Where the pieces of a job run: a Dask cluster of this machine's own, or any other by address.

A `Service` answers at once. One thread of its own (the conductor) talks to Dask; what anybody may
want to know is in the store, so status costs no round trip and survives every process. Each piece
is one Dask task, and what it found is in the store before the task ends. Dask runs whatever code
it is sent, so the local cluster listens on 127.0.0.1 only, and to holders of its certificate only.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import hashlib
import importlib
import json
import logging
import multiprocessing
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil

from merging.errors import ComputeError, MergingError, StoppedError
from merging.store import JSON, JobRecord, Store

if TYPE_CHECKING:
    from distributed import Client, Future

ACTIVE = ("queued", "running")

_REPORT_SECONDS = 0.2  # a report or partial result is written at most this often
_WINDOW = 64  # pieces of a job that Dask holds at a time
_START_SECONDS = 60.0
_CONNECT_SECONDS = 10.0
_WORKER_BYTES = 700 << 20  # what a worker with torch and a small model takes
_LOG_BYTES = 1 << 20
_ROOT = Path(__file__).resolve().parents[1]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Piece:
    """One task: `payload` is JSON text for the runner, its result is kept under `key`."""

    key: str
    payload: str


@dataclass(frozen=True)
class Job:
    """What a person waits for.

    Attributes:
        key: 64 hexadecimal digits.
        title: What a person reads.
        pieces: In order of importance: earlier ones run first.
        runner: `"package.module:function"`, called in a worker as `function(payload, context)`;
            it returns named arrays and JSON values that say what they are.
        needs: Jobs whose results must be in the store first.
    """

    key: str
    title: str
    pieces: tuple[Piece, ...]
    runner: str
    needs: tuple[Job, ...] = ()


@dataclass(frozen=True)
class Status:
    """How a job stands.

    Attributes:
        state: missing, queued, running, done, failed, stopped or interrupted.
        done: Pieces that are done, and the fraction of those that run.
        total: Pieces in all.
        note: What is going on, in words.
        error: Why it failed or was interrupted, else None.
        seconds: Since it was submitted, until it ended.
        eta: Seconds that are left if it goes on like this; None while that is unknown.
    """

    state: str
    done: float
    total: float
    note: str = ""
    error: str | None = None
    seconds: float = 0.0
    eta: float | None = None


class Context:
    """What a runner is given beside its payload: the store, and somebody to report to."""

    def __init__(self, store: Store, key: str):
        self.store = store
        self._key = key
        self._reported = self._kept = -_REPORT_SECONDS
        self._pending: tuple[Mapping[str, np.ndarray], Mapping[str, JSON]] | None = None

    def report(self, done: float, total: float, note: str = "") -> None:
        """Say how far the piece has come; a good place to be stopped.

        Args:
            done: How much is done,
            total: of how much.
            note: What is going on, in words.

        Raises:
            StoppedError: If somebody asked for that.
        """
        now = time.monotonic()
        if now - self._reported < _REPORT_SECONDS:
            return
        self._reported = now
        if self.store.report(self._key, done, total, note):
            raise StoppedError("stopped as asked")

    def partial(self, arrays: Mapping[str, np.ndarray], meta: Mapping[str, JSON]) -> None:
        """Show what is known so far; the arrays must not change afterwards."""
        self._pending = arrays, meta
        if time.monotonic() - self._kept >= _REPORT_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Keep the last partial result now."""
        if self._pending is not None:
            self.store.put_partial(self._key, *self._pending)
            self._pending, self._kept = None, time.monotonic()


# In a worker


@dataclass(frozen=True)
class _Place:
    """Which store a worker opens."""

    folder: Path
    limit_bytes: int
    bundled: tuple[Path, ...]


@functools.lru_cache(maxsize=8)
def _store_at(place: _Place) -> Store:
    return Store(place.folder, place.limit_bytes, place.bundled)


def run_piece(runner: str, piece: Piece, job_key: str, place: _Place) -> None:
    """Compute one piece and keep its result; called by Dask in a worker.

    Args:
        runner: As in `Job`.
        piece: What to compute.
        job_key: The job it was first sent for.
        place: Where the result goes.

    Raises:
        MergingError: What the runner raised.
        ComputeError: If the runner raised anything else; the log has the traceback.
    """
    store = _store_at(place)
    if store.has([piece.key]):
        return
    context = Context(store, piece.key)
    try:
        store.begin(job_key)
        context.report(0, 1)
        arrays, meta = _function(runner)(piece.payload, context)
        store.put(piece.key, arrays, meta)
    except MergingError:
        with suppress(MergingError):  # what stopped the piece is the better message
            context.flush()
            store.clear_progress([piece.key])
        raise
    except Exception as error:
        log.exception("%s ended unexpectedly on %s", runner, piece.payload[:200])
        with suppress(MergingError):
            store.clear_progress([piece.key])
        raise ComputeError(_unexpected(error)) from None


def _function(runner: str) -> Callable[[str, Context], tuple[dict[str, np.ndarray], dict]]:
    module, _, name = runner.partition(":")
    return getattr(importlib.import_module(module), name)


def _unexpected(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "there was not enough memory; ask for less at once, or use smaller models"
    return f"this ended with an unexpected {type(error).__name__}: {error}"


def dask_setup(worker: object) -> None:  # noqa: ARG001  (Dask calls it so)
    """Let a starting local worker yield to the interface, and load its libraries meanwhile."""
    if hasattr(os, "nice"):
        os.nice(5)
    if module := os.environ.get("ONE_BASIN_PRELOAD"):
        threading.Thread(target=importlib.import_module, args=[module], daemon=True).start()


# In the compute process


def main(arguments: list[str]) -> None:
    """Serve a local cluster for as long as the parent process lives.

    Args:
        arguments: The file to write the address to, the parent's process id, the store's folder.
    """
    address_file, parent, folder = Path(arguments[0]), int(arguments[1]), arguments[2]
    os.environ["ONE_BASIN_STORE"] = folder
    _configure(scratch=address_file.parent)
    from distributed import LocalCluster, Security

    security = Security.temporary()
    cluster = LocalCluster(
        n_workers=_worker_count(),
        threads_per_worker=1,
        dashboard_address=None,
        host="127.0.0.1",
        security=security,
        scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
        preload=["merging.compute"],
    )
    card = {
        "address": cluster.scheduler_address,
        "pid": os.getpid(),
        "tls_ca_file": security.tls_ca_file,
        "tls_client_cert": security.tls_client_cert,
        "tls_client_key": security.tls_client_key,
    }
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    _write_private(address_file, json.dumps(card))
    while _is_parent(parent) and not over.wait(0.5):
        pass
    for worker in multiprocessing.active_children():  # what they found is in the store
        worker.kill()
    shutil.rmtree(address_file.parent, ignore_errors=True)
    os._exit(0)  # Dask would wait for the workers' tasks


def _configure(scratch: Path) -> None:
    from dask import config

    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), 1)
    roomy = dict.fromkeys(("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"), 1 << 30)
    settings = {
        "distributed.nanny.pre-spawn-environ": {**one_thread, **roomy},  # else glibc maps tensors
        "distributed.scheduler.allowed-failures": 1,
        "distributed.admin.tick.limit": "30s",
        "temporary-directory": str(scratch),  # nobody else may look into it
        "distributed.scheduler.http.routes": [],  # no pages for those without a certificate
        "distributed.worker.http.routes": [],
    }
    config.set(settings)


def _is_parent(process_id: int) -> bool:
    if os.name == "posix":
        return os.getppid() == process_id  # a process whose parent is gone is given another
    return psutil.pid_exists(process_id)


def _worker_count() -> int:
    from dask.system import CPU_COUNT
    from distributed.system import MEMORY_LIMIT

    asked = os.environ.get("ONE_BASIN_WORKERS", "")
    return int(asked) if asked.isdigit() else max(1, min(CPU_COUNT, MEMORY_LIMIT // _WORKER_BYTES))


def _write_private(path: Path, text: str) -> None:
    temp = path.with_suffix(".tmp")
    with os.fdopen(os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    temp.replace(path)


# In the process that asks


class _LocalCluster:
    """The compute process of this app, as its parent sees it."""

    def __init__(self, store: Store, preload: str):
        self.folder = Path(tempfile.mkdtemp(prefix="one-basin-compute-"))  # nobody else may look
        self.log = store.folder / "compute.log"
        self._card = self.folder / "scheduler.json"
        self._deadline = time.monotonic() + _START_SECONDS
        self._connected = False
        tidy = "ignore:resource_tracker"  # it has to clean up after workers that are killed
        command = [sys.executable, "-W", tidy, "-m", "merging.compute"]
        command += [str(self._card), str(os.getpid()), str(store.folder)]
        environment = {**os.environ, "ONE_BASIN_PRELOAD": preload}
        grown = self.log.exists() and self.log.stat().st_size > _LOG_BYTES
        with self.log.open("wb" if grown else "ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd=_ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def alive(self) -> bool:
        """Return whether it runs, or may still come up."""
        return self._process.poll() is None and (
            self._connected or time.monotonic() < self._deadline
        )

    def connect(self) -> Client | None:
        """Return a client, or None while it is not up yet."""
        if not self._card.exists():
            return None
        from distributed import Client, Security

        card = json.loads(self._card.read_text())
        self._card.unlink()  # it has one reader
        self._connected = True
        address = card.pop("address")
        del card["pid"]
        security = Security(require_encryption=True, **card)
        return Client(address, security=security, set_as_default=False, timeout=_CONNECT_SECONDS)

    def end(self) -> None:
        """End it and its workers."""
        self._process.terminate()
        try:
            self._process.wait(timeout=3)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def lost(self) -> str:
        """What to say when it is gone."""
        return f"the compute process ended twice; {self.log} says why. Start the job again"


class _OtherCluster:
    """A cluster that somebody else runs."""

    def __init__(self, address: str):
        self._address = address

    def alive(self) -> bool:
        """Dask's client notices by itself when it is gone."""
        return True

    def connect(self) -> Client:
        """Return a client."""
        from distributed import Client

        return Client(self._address, set_as_default=False, timeout=_CONNECT_SECONDS)

    def end(self) -> None:
        """Leave it alone."""

    @property
    def lost(self) -> str:
        """What to say when it is gone."""
        return f"the cluster at {self._address} cannot be reached; start it, then the job again"


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
        self._address = address or os.environ.get("DASK_SCHEDULER_ADDRESS")
        self._preload = preload
        self._me = _this_process()
        self._place = _Place(store.folder, store.limit_bytes, store.bundled)
        self._place_digest = hashlib.sha256(str(store.folder).encode()).hexdigest()[:8]
        self._messages: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._live: dict[str, _Live] = {}
        self._futures: dict[str, Future] = {}
        self._cluster: _LocalCluster | _OtherCluster | None = None
        self._client: Client | None = None
        self._unwritten: dict[str, str] = {}  # jobs that failed because the store cannot be written
        for record in store.jobs(*ACTIVE):
            if not _lives(record.process):
                store.update_job(record.key, record.process, state="interrupted")
        self._thread = threading.Thread(target=self._conduct, name="compute", daemon=True)
        self._thread.start()

    # Anybody may call these from any thread

    def submit(self, job: Job, owner: str = "") -> None:
        """Ask for a job, which is not new if it is there or under way; also how to resume one.

        Args:
            job: What to compute.
            owner: Who asks, for the record.

        Raises:
            ComputeError: If the service was closed.
        """
        if not self._thread.is_alive():
            raise ComputeError("the compute service was closed; restart the app")
        record = self.store.job(job.key)
        if not (record and record.state in ACTIVE and record.process == self._me):
            present = self.store.has(piece.key for piece in job.pieces)
            if len(present) == len({piece.key for piece in job.pieces}):
                return
            self._write_queued(job, owner, len(present))
        self._unwritten.pop(job.key, None)
        self._messages.put(lambda: self._take(job, owner))

    def stop(self, job: Job) -> None:
        """Stop a job, and the jobs it needs that nobody else does; what is finished stays.

        A job that another one needs goes on.

        Args:
            job: What to stop.
        """
        self._messages.put(lambda: self._stop(job, even_asked=True))

    def warm_up(self) -> None:
        """Start the compute process now, so that the first job need not wait for it."""
        self._messages.put(self._start)

    def status(self, job: Job) -> Status:
        """Return how a job stands; costs a few reads of the store's index.

        Args:
            job: As it was submitted, or would be.

        Returns:
            Its state, progress and time.
        """
        keys = {piece.key for piece in job.pieces}
        record = self.store.job(job.key)  # before `has`: a job is done after its last piece
        present = self.store.has(keys)
        seconds = _seconds(record)
        if len(present) == len(keys):
            return Status("done", len(keys), len(keys), seconds=seconds)
        if job.key in self._unwritten:
            error = self._unwritten[job.key]
            return Status("failed", len(present), len(keys), error=error, seconds=seconds)
        if record is None or record.state == "done":  # or room was made since
            return Status("missing", len(present), len(keys))
        if record.state in ACTIVE and (record.process == self._me or _lives(record.process)):
            return self._under_way(job, record, keys - present, len(present))
        state = "interrupted" if record.state in ACTIVE else record.state
        return Status(state, len(present), len(keys), "", record.error, seconds)

    def close(self) -> None:
        """End the compute process; jobs under way become interrupted."""
        self._messages.put(None)
        self._thread.join(timeout=15)

    def _under_way(self, job: Job, record: JobRecord, missing: set[str], present: int) -> Status:
        running = self.store.progress(missing)
        done = present + sum(min(1.0, piece.done / piece.total) for piece in running.values())
        note = next((piece.note for piece in running.values() if piece.note), record.note)
        if not running and record.state == "queued":
            note = self._waits_for(job) or note
        eta = None
        if record.started is not None and done > record.base:
            rate = (done - record.base) / max(time.time() - record.started, 1e-3)
            eta = (present + len(missing) - done) / rate
        total = present + len(missing)
        return Status(record.state, done, total, note, None, _seconds(record), eta)

    def _waits_for(self, job: Job) -> str:
        for need in job.needs:
            status = self.status(need)
            if status.state in ACTIVE:
                return f"First: {need.title}" + (f" ({status.note})" if status.note else "")
        return ""

    def _write_queued(self, job: Job, owner: str, present: int) -> None:
        self.store.write_job(
            job.key,
            title=job.title,
            state="queued",
            done=present,
            base=present,
            total=len(job.pieces),
            note="",
            error=None,
            owner=owner,
            process=self._me,
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
                self._lose(str(error) if isinstance(error, MergingError) else _unexpected(error))
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
        present = self.store.has(piece.key for piece in job.pieces)
        missing = {
            piece.key: (rank, piece)
            for rank, piece in enumerate(job.pieces)
            if piece.key not in present
        }
        if missing:
            self._write_queued(job, owner, len(present))
            self._live[job.key] = _Live(job, asked, missing)
        else:
            self.store.update_job(job.key, self._me, state="done")

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
            self._cluster = _OtherCluster(self._address)
        elif self._cluster is None:
            self._cluster = _LocalCluster(self.store, self._preload)

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
                self.store.clear_progress(new)
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
                self._end(live, "failed", _in_words(error))

    def _advance(self, live: _Live, key: str) -> None:
        live.sent.pop(key, None)
        live.waiting.pop(key, None)
        if live.sent or live.waiting:
            done = len(live.job.pieces) - len(live.sent) - len(live.waiting)
            self._record(live, state="running", done=done)
        elif self.store.has(_keys(live.job.pieces)) == _keys(live.job.pieces):
            self._end(live, "done")
        else:
            self._end(
                live,
                "failed",
                f"the results are not in {self.store.folder}; the workers must see that folder, "
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
            self.store.request_stop(unwanted)
        self._forget([self._futures.pop(key) for key in unwanted])
        if state != "done":
            for other in list(self._live.values()):
                if live.job.key in _keys(other.job.needs):
                    self._end(other, state, error)

    def _record(self, live: _Live, **fields: float | str | None) -> str:
        """Write a job's record, and return what kept the store from it, or nothing."""
        try:
            self.store.update_job(live.job.key, self._me, **fields)
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


def _seconds(record: JobRecord | None) -> float:
    if record is None:
        return 0.0
    return (time.time() if record.state in ACTIVE else record.updated) - record.submitted


def _in_words(error: BaseException) -> str:
    if isinstance(error, MergingError):
        return str(error)
    if type(error).__name__ == "KilledWorker":
        return (
            "the process that worked on this ended twice, most often for want of memory; "
            "ask for less at once, or use smaller models"
        )
    return _unexpected(error)


def _this_process() -> str:
    return f"{socket.gethostname()}/{os.getpid()}/{psutil.Process().create_time():.0f}"


def _lives(process: str) -> bool:
    """Return whether a process of `_this_process` still runs on this machine."""
    try:
        host, pid, born = process.rsplit("/", 2)
        age = abs(psutil.Process(int(pid)).create_time() - float(born))
    except (ValueError, psutil.Error):
        return False
    return host == socket.gethostname() and age < 5


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
    from merging import compute  # under its own name, as workers import it

    compute.main(sys.argv[1:])
