"""Where pieces run: a Dask cluster of this machine's own, or any other by address.

Dask runs whatever code it is sent, so the local cluster listens on 127.0.0.1 only, and to holders
of its certificate only. `main` is the local process, `OwnCluster` how its parent sees it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from merging.results.compute.processes import find_process
from merging.results.compute.store import Store

if TYPE_CHECKING:
    from distributed import Client

_START_SECONDS = 60.0
_CONNECT_SECONDS = 10.0
_WORKER_BYTES = 700 << 20  # what a worker with torch and a small model takes
_SPARE = 1  # worker that is kept for first pieces, see `merging.results.compute.turns`
_LOG_BYTES = 1 << 20
# So long after a worker ended, Dask gives its place up for good if nobody is there at that moment:
# be it that it is ended a second time just then, or takes long to come back on a busy machine.
_NEVER = "3650 days"
_ROOT = Path(__file__).resolve().parents[3]


# In the compute process


def main(arguments: list[str]) -> None:
    """Serve a local cluster for as long as the parent process lives.

    Args:
        arguments: The file to write the address to, the parent's process id, the store's folder.
    """
    address_file, parent, folder = Path(arguments[0]), int(arguments[1]), arguments[2]
    os.environ["ONE_BASIN_STORE"] = folder
    _configure(scratch=address_file.parent)
    _fork_workers()
    from distributed import LocalCluster, Security
    from distributed.system import MEMORY_LIMIT

    security, count = Security.temporary(), _worker_count()
    cluster = LocalCluster(
        n_workers=count + _SPARE,
        threads_per_worker=1,
        memory_limit=MEMORY_LIMIT // count,
        dashboard_address=None,
        host="127.0.0.1",
        security=security,
        scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
        preload=["merging.results.compute.run_piece"],
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
    roomy = {"MALLOC_TRIM_THRESHOLD_": 1 << 26, "MALLOC_MMAP_THRESHOLD_": 1 << 25}
    settings = {
        "distributed.nanny.pre-spawn-environ": {**one_thread, **roomy},  # else glibc maps tensors
        "distributed.scheduler.allowed-failures": 1,
        "distributed.admin.tick.limit": "30s",
        "distributed.scheduler.worker-ttl": None,  # a worker that is busy for long is not dead
        "distributed.deploy.lost-worker-timeout": _NEVER,
        "temporary-directory": str(scratch),  # nobody else may look into it
        "distributed.scheduler.http.routes": [],  # no pages for those without a certificate
        "distributed.worker.http.routes": [],
    }
    config.set(settings)


def _fork_workers() -> None:
    """Fork workers from one process that has loaded the libraries, whose memory they then share.

    Elsewhere than on Linux the systems' own libraries do not survive a fork.
    """
    if sys.platform != "linux":
        return
    from dask import config
    from distributed import utils

    config.set({"distributed.worker.multiprocessing-method": "forkserver"})
    preload = os.environ.pop("ONE_BASIN_PRELOAD", "")
    multiprocessing.set_forkserver_preload([
        name for name in ("merging.results.compute.run_piece", preload) if name
    ])
    utils._forkserver_preload_set = True  # else it has its own list, and loads that here too


def _is_parent(process_id: int) -> bool:
    if os.name == "posix":
        return os.getppid() == process_id  # a process whose parent is gone is given another
    return psutil.pid_exists(process_id)


def _worker_count() -> int:
    from dask.system import CPU_COUNT
    from distributed.system import MEMORY_LIMIT

    asked = os.environ.get("ONE_BASIN_WORKERS", "")
    found = int(asked) if asked.isdigit() else min(CPU_COUNT, MEMORY_LIMIT // _WORKER_BYTES)
    return max(1, found)


def _write_private(path: Path, text: str) -> None:
    temp = path.with_suffix(".tmp")
    with os.fdopen(os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    temp.replace(path)


# In the process that asks


class OwnCluster:
    """The compute process of this app, as its parent sees it.

    Attributes:
        shared: Whether others send it pieces too.
    """

    shared = False

    def __init__(self, store: Store, preload: str):
        self.folder = Path(tempfile.mkdtemp(prefix="one-basin-compute-"))  # nobody else may look
        self.log = store.folder / "compute.log"
        self._card = self.folder / "scheduler.json"
        self._deadline = time.monotonic() + _START_SECONDS
        self._connected = False
        tidy = "ignore:resource_tracker"  # it has to clean up after workers that are killed
        command = [sys.executable, "-W", tidy, "-m", "merging.results.compute.service"]
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

    def process(self, worker: str) -> psutil.Process | None:
        """Return the process of a worker, or None if it is gone or none of this cluster's.

        Args:
            worker: As `merging.results.compute.processes` names it.
        """
        found = find_process(worker)
        try:
            own = found is not None and self._process.pid in {p.pid for p in found.parents()}
        except psutil.Error:
            return None
        return found if own else None

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


class OtherCluster:
    """A cluster that somebody else runs."""

    shared = True

    def __init__(self, address: str):
        self._address = address

    def alive(self) -> bool:
        """Dask's client notices by itself when it is gone."""
        return True

    def connect(self) -> Client:
        """Return a client."""
        from distributed import Client

        return Client(self._address, set_as_default=False, timeout=_CONNECT_SECONDS)

    def process(self, worker: str) -> psutil.Process | None:  # noqa: ARG002
        """Nobody's: its processes are not ours to end."""
        return None

    def end(self) -> None:
        """Leave it alone."""

    @property
    def lost(self) -> str:
        """What to say when it is gone."""
        return f"the cluster at {self._address} cannot be reached; start it, then the job again"
