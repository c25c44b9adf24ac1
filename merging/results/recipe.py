"""Recipes: how a result came to be, written so that it can be made again.

A recipe names the request, the files by fingerprint, the versions, the times, and the SHA-256 of
what came out. `compare` says what differs when it is made again.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from merging.results.compute.entry import Entry
from merging.results.requests import SCHEMA, Request

_PACKAGES = ("torch", "numpy", "scipy", "safetensors")
# Fields of a result that say how long it took, not what it is.
_TIMES = ("seconds",)


def recipe(
    request: Request[Any],
    entries: list[Entry],
    sources: Mapping[str, str],
    seconds: float,
    spec: str = "",
) -> dict[str, Any]:
    """Write down how a result came to be.

    Args:
        request: What was asked for.
        entries: What came out, piece by piece.
        sources: The files and names that were given, by what they are (`model_a`, say).
        seconds: How long it took.
        spec: The permutation spec as JSON, if it was chosen; the derived one is found again.

    Returns:
        A value for JSON.
    """
    return {
        "one_basin_recipe": 1,
        "request": request.payload,
        "sources": dict(sources),
        "spec": spec,
        "versions": versions(),
        "seconds": seconds,
        "result": result_digest(entries),
    }


def versions() -> dict[str, str]:
    """Versions of whatever may change a result."""
    found = {"schema": str(SCHEMA), "python": platform.python_version()}
    found["machine"] = platform.machine()
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def result_digest(entries: list[Entry]) -> str:
    """SHA-256 of arrays and values, times left out."""
    digest = hashlib.sha256()
    for entry in entries:
        for name in sorted(entry.arrays):
            array = np.ascontiguousarray(entry.arrays[name])
            digest.update(repr((name, array.dtype.str, array.shape)).encode() + array.tobytes())
        meta = _timeless(entry.meta)
        digest.update(repr(sorted(meta.items(), key=lambda item: item[0])).encode())
    return digest.hexdigest()


def _timeless(value: Any) -> Any:
    """A value for JSON without any times in it."""
    if isinstance(value, Mapping):
        return {key: _timeless(inner) for key, inner in value.items() if key not in _TIMES}
    return [_timeless(inner) for inner in value] if isinstance(value, list) else value


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two recipes of one request, in words; nothing if the bytes are equal.

    Args:
        old: The recipe as it was written.
        new: The recipe of the second time.

    Returns:
        Lines; the first says whether the results are equal.
    """
    if old["result"] == new["result"]:
        return []
    lines = [f"the result differs: {old['result'][:12]} then, {new['result'][:12]} now"]
    lines += [
        f"{name}: {value} then, {new['versions'].get(name, 'unknown')} now"
        for name, value in old["versions"].items()
        if new["versions"].get(name) != value
    ]
    if len(lines) == 1:
        lines.append("all versions are equal: the processor, or the number of threads, differs")
    return lines
