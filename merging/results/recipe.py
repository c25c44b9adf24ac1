"""Recipes: how a result came to be, written so that it can be made again.

A recipe names the request, the files by fingerprint, the versions, the times, and the SHA-256 of
what came out. `compare` says what differs when it is made again.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from merging.results.compute.entry import Entry
from merging.results.requests import SCHEMA, Request, from_payload
from merging.schema.errors import MergingError

_PACKAGES = ("torch", "numpy", "scipy", "safetensors")
# Fields of a result that say how long it took, not what it is.
_TIMES = ("seconds", "sweep_seconds", "match_seconds", "points_per_second")
# The version of the file.
_FORMAT = 1


@dataclass(frozen=True)
class Recipe:
    """How a result came to be.

    Attributes:
        request: What was asked for.
        sources: The files and names that were given, by what they are (`model_a`, say).
        spec: The permutation spec as JSON, if it was chosen; the derived one is found again.
        versions: Versions of whatever may change the result.
        seconds: How long it took.
        result: The digest of what came out.
    """

    request: Request[Any]
    sources: Mapping[str, str]
    spec: str
    versions: Mapping[str, str]
    seconds: float
    result: str

    def write(self, path: Path) -> None:
        """Write the recipe to a file, as `read_recipe` reads it."""
        values = {
            "one_basin_recipe": _FORMAT,
            "request": self.request.payload,
            "sources": dict(self.sources),
            "spec": self.spec,
            "versions": dict(self.versions),
            "seconds": self.seconds,
            "result": self.result,
        }
        path.write_text(json.dumps(values, indent=2) + "\n", "utf-8")


def read_recipe(path: Path) -> Recipe:
    """Read a recipe from its file.

    Args:
        path: The file.

    Returns:
        The recipe.

    Raises:
        MergingError: If the file holds none, or one of another version.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
        if found["one_basin_recipe"] == _FORMAT and {"request", "sources", "result"} <= set(found):
            return Recipe(
                request=from_payload(found["request"]),
                sources=found["sources"],
                spec=found.get("spec", ""),
                versions=found.get("versions", {}),
                seconds=found.get("seconds", 0.0),
                result=found["result"],
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MergingError(
            f"{path}: this is not a recipe ({error}); give a file that --recipe-out wrote"
        ) from error
    raise MergingError(
        f"{path}: this is not a recipe of this version; make it again with --recipe-out"
    )


def versions() -> dict[str, str]:
    """Return the versions of whatever may change a result."""
    found = {"schema": str(SCHEMA), "python": platform.python_version()}
    found["machine"] = platform.machine()
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def result_digest(entries: Sequence[Entry]) -> str:
    """Return the SHA-256 of arrays and values, times left out."""
    digest = hashlib.sha256()
    for entry in entries:
        for name in sorted(entry.arrays):
            array = np.ascontiguousarray(entry.arrays[name])
            digest.update(repr((name, array.dtype.str, array.shape)).encode() + array.tobytes())
        meta = _timeless(entry.meta)
        digest.update(repr(sorted(meta.items(), key=lambda item: item[0])).encode())
    return digest.hexdigest()


def _timeless(value: Any) -> Any:
    """Return a value for JSON without any times in it."""
    if isinstance(value, Mapping):
        return {key: _timeless(inner) for key, inner in value.items() if key not in _TIMES}
    return [_timeless(inner) for inner in value] if isinstance(value, list) else value


def compare(old: Recipe, new: Recipe) -> list[str]:
    """Say in words what differs between two recipes of one request.

    Args:
        old: The recipe as it was written.
        new: The recipe of the second time.

    Returns:
        Lines, of which the first names both digests; none if the results are equal.
    """
    if old.result == new.result:
        return []
    lines = [f"the result differs: {old.result[:12]} then, {new.result[:12]} now"]
    lines += [
        f"{name}: {value} then, {new.versions.get(name, 'unknown')} now"
        for name, value in old.versions.items()
        if new.versions.get(name) != value
    ]
    if len(lines) == 1:
        lines.append("all versions are equal: the processor, or the number of threads, differs")
    return lines
