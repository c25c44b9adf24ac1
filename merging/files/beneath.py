"""Open what lies inside a folder, whatever becomes of the names in it meanwhile.

A name that was checked and is then opened again may mean another file by then. Here every part of
a path is opened once, from the handle of the folder before it and without following a link; links
are read and walked in the same way. So nothing is reached but what lies beneath the first folder,
and what is read is what was opened.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

_MAX_LINKS = 16
_MAX_FILES = 600  # of a folder; each takes a handle
_HANDLES = Path("/proc/self/fd")  # Linux: where an open file can be opened again by its handle
_FLAGS = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC"))


def is_supported() -> bool:
    """Return whether this system can open files in this way."""
    return os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")


def open_beneath(root: Path, parts: Sequence[str]) -> int:
    """Open a file or a folder inside a folder.

    Args:
        root: The folder, all links resolved.
        parts: The path inside it; links in it are walked as far as they stay inside.

    Returns:
        Its handle, to be closed by the caller. A pipe is opened without waiting for its other end.

    Raises:
        PermissionError: If a link or `..` leads out.
        OSError: If there is no such file, or links lead in a circle.
    """
    todo, links = list(reversed(parts)), 0
    handles = [os.open(root, os.O_RDONLY | _FLAGS)]
    try:
        while todo:
            part = todo.pop()
            if part == "..":
                os.close(handles.pop())
                if not handles:
                    raise PermissionError(errno.EACCES, "the path leads out of the folder")
                continue
            if part in ("", "."):
                continue
            try:
                handles.append(os.open(part, os.O_RDONLY | _FLAGS, dir_fd=handles[-1]))
            except OSError as error:
                links += 1
                if error.errno not in (errno.ELOOP, errno.EMLINK) or links > _MAX_LINKS:
                    raise
                target = os.readlink(part, dir_fd=handles[-1])
                if target.startswith("/"):
                    target = _inside(target, root)
                    while len(handles) > 1:
                        os.close(handles.pop())
                todo.extend(reversed(target.split("/")))
        return handles.pop()
    finally:
        for handle in handles:
            os.close(handle)


@contextmanager
def held(root: Path, parts: Sequence[str]) -> Iterator[tuple[Path, list[os.stat_result]]]:
    """Hold a file, or the files directly inside a folder, open for as long as they are read.

    Args:
        root: The folder, all links resolved.
        parts: The path inside it.

    Yields:
        A path in a private folder, under which the opened files are read whatever becomes of
        their names, and what the system says of the files.

    Raises:
        PermissionError: If a link leads out, or it is neither a file nor a folder.
        OSError: If there is no such file, or a folder holds too many.
    """
    with ExitStack() as stack:
        private = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="one-basin-")))
        handle = _opened(stack, root, parts)
        status = os.fstat(handle)
        place = private / (parts[-1] if parts else "folder")
        if stat.S_ISREG(status.st_mode):
            _show(handle, place)
            yield place, [status]
            return
        if not stat.S_ISDIR(status.st_mode):
            raise PermissionError(errno.EACCES, "a pipe or a device")
        place.mkdir()
        yield place, _hold_files(stack, handle, root, parts, place)


def _hold_files(
    stack: ExitStack, folder: int, root: Path, parts: Sequence[str], place: Path
) -> list[os.stat_result]:
    names = sorted(os.listdir(folder))
    if len(names) > _MAX_FILES:
        raise OSError(errno.EMFILE, f"the folder holds more than {_MAX_FILES} files")
    found = []
    for name in names:
        handle = _opened(stack, root, [*parts, name])
        status = os.fstat(handle)
        if stat.S_ISREG(status.st_mode):
            _show(handle, place / name)
            found.append(status)
    return found


def _opened(stack: ExitStack, root: Path, parts: Sequence[str]) -> int:
    handle = open_beneath(root, parts)
    stack.callback(os.close, handle)
    return handle


def _inside(target: str, root: Path) -> str:
    """Return an absolute link as a path inside the folder.

    Raises:
        PermissionError: If it leads out.
    """
    try:
        return Path(target).relative_to(root).as_posix()
    except ValueError as error:
        raise PermissionError(errno.EACCES, "a link leads out of the folder") from error


def _show(handle: int, place: Path) -> None:
    """Make an open file readable under a private name: by its handle, or as a copy."""
    if _HANDLES.is_dir():
        place.symlink_to(_HANDLES / str(handle))
        return
    with os.fdopen(os.dup(handle), "rb") as source, place.open("wb") as copy:
        shutil.copyfileobj(source, copy)
