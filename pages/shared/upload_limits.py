"""How much readers may upload: for each session and in all, refused before a byte is read.

Streamlit takes any number of files up to `server.maxUploadSize` each, with or without a widget that
asked for them, and keeps them in memory until the session is forgotten. What is there is asked of
its own file manager (`file_storage`, which Streamlit does not document; a test says if an upgrade
takes it away).
"""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import streamlit as st
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from streamlit.runtime import get_instance
from streamlit.runtime.scriptrunner import get_script_run_ctx

from merging.schema.errors import MergingError
from pages.shared import jobs

FILES_OF_SESSION = 48
_SESSION_SHARE, _WHOLE_SHARE = 6, 16  # times server.maxUploadSize
_SWEEP_SECONDS = 20.0
_UPLOAD = re.compile(r"/_stcore/upload_file/([^/]+)/([^/]+)$")

log = logging.getLogger(__name__)

Held = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Limits:
    """The most that may be uploaded.

    Attributes:
        session_files: Files of one session.
        session_bytes: Bytes of one session.
        whole_bytes: Bytes of all sessions together.
    """

    session_files: int
    session_bytes: int
    whole_bytes: int

    def refusal(self, session: str, file: str, size: int, held: Held) -> str:
        """Return why another file is refused, in words; empty if it is not.

        Args:
            session: Whose file it is.
            file: Its identity; one that is there already is replaced.
            size: Bytes.
            held: Sizes of the files that are there, by session and identity.
        """
        own = {key: value for key, value in held.get(session, {}).items() if key != file}
        if len(own) >= self.session_files:
            return f"You have {len(own)} files here, and that is the most. {_REMOVE}"
        if sum(own.values()) + size > self.session_bytes:
            return (
                f"All your files together may have {_megabytes(self.session_bytes)}; "
                f"{_megabytes(sum(own.values()))} are here already. {_REMOVE}"
            )
        others = sum(sum(sizes.values()) for key, sizes in held.items() if key != session)
        if others + sum(own.values()) + size > self.whole_bytes:
            return (
                f"All readers' files together may have {_megabytes(self.whole_bytes)}, and there "
                "is no room now. Try again in a few minutes."
            )
        return ""


_REMOVE = "Remove some, or reload the page."


_refused: dict[str, str] = {}  # why a session's last upload was refused; its page asks for it


def refusal() -> str:
    """Return why the last upload of the running session was refused; empty if it was not.

    Streamlit's own widget says no more than that its request failed.
    """
    running = get_script_run_ctx()
    return "" if running is None else _refused.get(running.session_id, "")


def limits() -> Limits:
    """Return the limits of this server: they follow `server.maxUploadSize`."""
    unit = int(st.get_option("server.maxUploadSize")) << 20
    return Limits(FILES_OF_SESSION, _SESSION_SHARE * unit, _WHOLE_SHARE * unit)


def limits_words() -> str:
    """Return the limits in words, for the help of a file uploader."""
    most = limits()
    return (
        f"All your files together: at most {most.session_files}, with "
        f"{_megabytes(most.session_bytes)}. They are forgotten when you leave."
    )


class UploadLimits:
    """Refuses uploads beyond the limits.

    Args:
        app: What takes the others.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._coming: dict[object, tuple[str, str, int]] = {}  # begun, and not there yet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        found = _UPLOAD.search(scope["path"]) if scope["type"] == "http" else None
        if found is None or scope["method"] != "PUT":
            await self._app(scope, receive, send)
            return
        session, file = found[1], found[2]
        if not get_instance().is_active_session(session):
            await self._app(scope, receive, send)  # refused there, and must not take up room here
            return
        most = limits()
        announced = Headers(scope=scope).get("content-length", "")
        # Without a word about its size it may have as much as Streamlit takes of a file.
        size = int(announced) if announced.isdecimal() else most.session_bytes // _SESSION_SHARE
        words = most.refusal(session, file, size, self._held())
        if words:
            _refused[session] = words
            await PlainTextResponse(words, status_code=413)(scope, receive, send)
            return
        _refused.pop(session, None)
        ticket = object()
        self._coming[ticket] = (session, file, size)
        try:
            await self._app(scope, receive, send)
        finally:
            del self._coming[ticket]

    def _held(self) -> Held:
        sizes = {session: dict(files) for session, files in held_files().items()}
        for number, (session, file, size) in enumerate(self._coming.values()):
            sizes.setdefault(session, {})[f"{file} {number}"] = size
        return sizes


def held_files() -> dict[str, dict[str, int]]:
    """Return the sizes in bytes of the files that Streamlit holds, by session and identity."""
    manager: Any = get_instance().uploaded_file_mgr
    storage: Mapping[str, Mapping[str, Any]] = manager.file_storage
    return {
        session: {key: len(file.data) for key, file in list(files.items())}
        for session, files in list(storage.items())
    }


@asynccontextmanager
async def housekeeping(app: st.App) -> AsyncIterator[None]:  # noqa: ARG001
    """Forget the files of sessions that left, for as long as a server runs.

    Args:
        app: What the server runs.

    Yields:
        Once; then the server runs.
    """
    task = asyncio.create_task(_sweep_on())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _sweep_on() -> None:
    left: dict[str, float] = {}
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        forget_left(left, time.monotonic())
        files = [key for own in held_files().values() for key in own]
        try:
            await asyncio.to_thread(jobs.forget_uploads_but, files)
        except MergingError as error:
            log.warning("Uploads that nobody needs could not be dropped: %s", error)


def forget_left(left: dict[str, float], now: float) -> None:
    """Forget the files of sessions that nobody can come back to.

    Args:
        left: When sessions were first seen without a browser; it is updated.
        now: In the same seconds.
    """
    runtime = get_instance()
    patience = float(st.get_option("server.disconnectedSessionTTL"))
    gone = {session for session in held_files() if not runtime.is_active_session(session)}
    for session in [s for s in _refused if not runtime.is_active_session(s)]:
        del _refused[session]
    for session in left.keys() - gone:
        del left[session]
    for session in gone:
        if now - left.setdefault(session, now) >= patience:
            runtime.uploaded_file_mgr.remove_session_files(session)
            del left[session]
            gc.collect()  # Streamlit's own collections are switched off, and sessions are circles


def _megabytes(count: int) -> str:
    return f"{count / (1 << 20):,.0f} MB"
