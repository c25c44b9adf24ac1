"""Memory of the compute processes while the heaviest requests of bundled pairs run."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from merging.results import requests
from merging.results.compute.job import ACTIVE
from merging.results.compute.service import Service
from merging.results.compute.store import Store

PAIRS = ("mnist-mlp-512", "mnist-vgg-ln", "mnist-resnet-bn", "mnist-vit")
_SAMPLE_SECONDS = 0.1


def measure(pairs: tuple[str, ...] = PAIRS) -> Iterator[str]:
    """Yield one line per pair: the most that all compute processes took together.

    One service computes all of them, one pair after another, as it would for a person.
    """
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Store(Path(folder)), preload="merging.results.tasks.preload")
        try:
            for pair in pairs:
                for kind, wanted in _heavy(pair).items():
                    peak, seconds = _peak(service, wanted)
                    yield f"{pair}, {kind}: at most {peak / 1e6:.0f} MB ({seconds:.0f} s)"
        finally:
            service.close()


def _heavy(pair: str) -> dict[str, list[requests.Request]]:
    subject = requests.bundled_subject(pair)
    weight = requests.alignment(subject, "weight")
    corrected = [
        requests.CurveRequest(subject, weight, statistics=kind, lams=5)
        for kind in ("repair", "rescale")
    ]
    return {
        "weight matching, then REPAIR and RESCALE curves": corrected,
        "activation matching": [requests.alignment(subject, "activation")],
        "layers": [requests.LayersRequest(subject, weight)],
    }


def _peak(service: Service, wanted: list[requests.Request]) -> tuple[int, float]:
    peak, over, start = 0, threading.Event(), time.perf_counter()

    def watch() -> None:
        nonlocal peak
        while not over.wait(_SAMPLE_SECONDS):
            peak = max(peak, size_of(psutil.Process().children(recursive=True)))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    jobs = [request.job() for request in wanted]
    for job in jobs:
        service.submit(job)
    while any(service.status(job).state in ACTIVE for job in jobs):
        time.sleep(_SAMPLE_SECONDS)
    over.set()
    watcher.join()
    states = [service.status(job) for job in jobs]
    if any(state.state != "done" for state in states):
        raise RuntimeError(f"not all was computed: {states}")
    return peak, time.perf_counter() - start


def size_of(processes: list[psutil.Process]) -> int:
    """Return the bytes that processes take together; shared pages count once, where known."""
    total = 0
    for process in processes:
        try:
            memory = process.memory_full_info()
        except psutil.Error:
            continue  # it has just ended
        total += getattr(memory, "pss", memory.rss)
    return total
