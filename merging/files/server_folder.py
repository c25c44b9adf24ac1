"""Files that lie on the server already, in the one folder that whoever started it named.

Off unless `$ONE_BASIN_FOLDER` is set. A name from a browser is only ever a path inside that
folder: no `..`, nothing absolute, and no link that leads out, and what is read is the file that was
checked. Needs no torch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from merging.files.beneath import held, is_supported
from merging.schema.errors import MergingError
from merging.schema.legible import legible

FOLDER = "ONE_BASIN_FOLDER"
WEIGHTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".pt2", ".zip")
EXAMPLES = (".npz", ".csv", ".zip", ".gz", ".tar")

_MAX_LISTED = 1000
_MAX_DEPTH = 6
_MODEL_MARKS = ("config.json", ".index.json")


def is_on() -> bool:
    """Return whether there is such a folder."""
    return bool(os.environ.get(FOLDER))


def names(endings: Sequence[str]) -> list[str]:
    """Return what can be opened: files with one of these endings, and folders of whole models.

    Args:
        endings: With their dots, lower case.

    Returns:
        Paths inside the folder with `/` between their parts, sorted; at most a thousand.

    Raises:
        MergingError: If there is no such folder.
    """
    root = _root()
    found = []
    for path in _walk(root, tuple(endings), with_models=".safetensors" in endings):
        if _stays_inside(path, root):
            found.append(path.relative_to(root).as_posix())
        if len(found) == _MAX_LISTED:
            break
    return sorted(found)


def identity(name: str) -> str:
    """Return what a request carries of a file: its path in the folder, its size, when it changed.

    Args:
        name: The path.

    Returns:
        Canonical JSON.

    Raises:
        MergingError: If there is no such file inside the folder.
    """
    with _held(name) as (_, stats):
        return _identity(name, stats)


@contextmanager
def opened(wanted: str) -> Iterator[Path]:
    """Hold open the file or folder that an identity is of, if it is still the same.

    Args:
        wanted: As `identity` gives it.

    Yields:
        A path under which it can be read inside the `with`, and no longer. Whatever becomes of
        the names on the server meanwhile, it is the file that was checked.

    Raises:
        MergingError: If it is not inside the folder, is gone, or changed since.
    """
    name = _name_of(wanted)
    with _held(name) as (path, stats):
        if _identity(name, stats) != wanted:
            raise MergingError(
                f"{_shown(name)} changed on the server since it was chosen; choose it again"
            )
        yield path


def _identity(name: str, stats: Sequence[os.stat_result]) -> str:
    found = {
        "path": PurePosixPath(name).as_posix(),
        "size": sum(stat.st_size for stat in stats),
        "changed": max((stat.st_mtime_ns for stat in stats), default=0),
    }
    return json.dumps(found, sort_keys=True, separators=(",", ":"))


def _name_of(wanted: str) -> str:
    try:
        found: dict[str, Any] = json.loads(wanted)
        return str(found["path"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MergingError("this names no file on the server; choose one on the page") from error


def _root() -> Path:
    named = os.environ.get(FOLDER, "")
    if not named:
        raise MergingError(
            f"this server opens no files of its own; whoever starts it can name a folder: {FOLDER}"
        )
    root = Path(named).resolve()
    if not root.is_dir():
        raise MergingError(f"{FOLDER} does not name a folder; tell whoever started this server")
    return root


@contextmanager
def _held(name: str) -> Iterator[tuple[Path, list[os.stat_result]]]:
    """Hold what a name means, certain to be inside the folder.

    Yields:
        Where it can be read, and what the system says of its files.

    Raises:
        MergingError: If there is no such file, or it is not inside.
    """
    root = _root()
    parts = PurePosixPath(name).parts
    outside = MergingError(
        f"{_shown(name)} is not a file inside the server's folder; choose one from the list"
    )
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise outside
    if not is_supported():
        raise MergingError(
            "this server's system cannot open files in a folder safely; upload the file in place "
            "of choosing it"
        )
    with ExitStack() as stack:
        try:
            found = stack.enter_context(held(root, parts))
        except PermissionError as error:
            raise outside from error
        except (OSError, ValueError) as error:
            raise MergingError(f"{_shown(name)}: there is no such file on the server") from error
        yield found


def _shown(name: str) -> str:
    return repr(legible(name, most=80))


def _stays_inside(path: Path, root: Path) -> bool:
    try:
        return path.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError):
        return False


def _walk(folder: Path, endings: tuple[str, ...], *, with_models: bool) -> Iterator[Path]:
    """Yield files and folders of models, links to folders not followed.

    Yields:
        Paths.
    """
    for here, folders, files in os.walk(folder):
        place = Path(here)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if len(place.relative_to(folder).parts) >= _MAX_DEPTH:
            folders.clear()
        visible = [name for name in files if not name.startswith(".")]
        is_model = any(name.endswith(_MODEL_MARKS) for name in visible)
        if with_models and is_model and place != folder:
            yield place
            continue
        yield from (place / name for name in sorted(visible) if name.lower().endswith(endings))
