"""Results on screen: shown if they are there, asked for if not, with progress and a stop button."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

import streamlit as st

from merging.results.compute import service as compute_service
from merging.results.compute import store
from merging.results.compute.job import ACTIVE, JobState, Status
from merging.results.requests import Request
from merging.schema.cards.zoo import ASSETS
from merging.schema.errors import MergingError
from pages.shared import session, words
from pages.shared.kept_uploads import KeptUploads, Upload

Result = TypeVar("Result")

_POLL_SECONDS = 0.8


@dataclass(frozen=True)
class Found(Generic[Result]):
    """A request, and what is there of its result."""

    request: Any
    result: Result
    complete: bool


@cache
def _store() -> tuple[store.Store, str | None]:
    return store.open_default(bundled=(ASSETS / "results",))


def service() -> compute_service.Service:
    """Return the compute service of this process."""
    return compute_service.service(_store()[0], preload="merging.results.tasks.preload")


def store_notice() -> str | None:
    """Say what a person should know about where results are kept, if anything."""
    return _store()[1]


@cache
def _uploads(results: store.Store) -> KeptUploads:
    return KeptUploads(results)


def keep_upload(file: Upload) -> str:
    """Keep an upload for a worker to read, and return the SHA-256 of its bytes."""
    return _uploads(_store()[0]).keep(file)


def forget_uploads_but(files: Iterable[str]) -> None:
    """Drop the uploads of this process of which no file is left, by the identities of those."""
    _uploads(_store()[0]).forget_all_but(files)


def read(request: Request[Result]) -> Result | None:
    """Return a result if it is there; nothing is asked for."""
    return request.read(_store()[0])


def follow(slot: str, wanted: Sequence[Request[Any]], *, start: bool = True) -> list[Found[Any]]:
    """Show results as far as they are there, and have the rest computed.

    While something is missing, progress and a stop button are drawn here, the page is run again
    whenever more is there, and a page that would be empty gets what it showed before.

    Args:
        slot: Names this place; one per place on a page.
        wanted: What to show.
        start: Whether to ask for what is missing, or wait until somebody does.

    Returns:
        What is there, in the order of `wanted`; nothing for a request without any result yet.
    """
    try:
        found = [_find(request) for request in wanted]
        missing = [r for r, f in zip(wanted, found, strict=True) if f is None or not f.complete]
        if missing:
            _pursue(slot, missing, start=start)
    except MergingError as error:
        words.tell(error)
        return session.last_shown(slot)
    shown = [f for f in found if f is not None]
    if missing and not shown and (previous := session.last_shown(slot)):
        st.caption("Below is the previous result, until the new one is ready.")
        return previous
    session.remember_shown(slot, shown)
    return shown


def _find(request: Request[Any]) -> Found[Any] | None:
    results = _store()[0]
    whole = request.read(results)
    if whole is not None:
        return Found(request, whole, complete=True)
    part = request.read_partial(results)
    return None if part is None else Found(request, part, complete=False)


def _pursue(slot: str, missing: Sequence[Request[Any]], *, start: bool) -> None:
    statuses = _statuses(missing)
    if start:
        for request, status in zip(missing, statuses, strict=True):
            if status.state in (JobState.MISSING, JobState.INTERRUPTED):
                _submit(request)
        statuses = _statuses(missing)
    # A job may have ended since the page looked for its result: then the page has to look again.
    active = any(status.state in (*ACTIVE, JobState.DONE) for status in statuses)
    poll = st.fragment(_progress, run_every=_POLL_SECONDS if active else None)
    poll(slot, tuple(missing), _total(statuses), active, [True])


def _statuses(wanted: Sequence[Request[Any]]) -> list[Status]:
    return [service().status(request.job(), session.owner()) for request in wanted]


def _total(statuses: Sequence[Status]) -> float:
    return sum(int(status.done) + (status.state not in ACTIVE) for status in statuses)


def _progress(
    slot: str,
    missing: tuple[Request[Any], ...],
    before: float,
    active: bool,
    page_runs: list[bool],
) -> None:
    """Show the progress of what is missing; run the page again when there is more.

    `page_runs` is emptied by the run that is part of the page's own: that one has just read all
    there is, and running the page again from inside itself would never end.
    """
    in_page_run = bool(page_runs) and page_runs.pop()
    statuses = _statuses(missing)
    live = [_has_partial(r) for r, s in zip(missing, statuses, strict=True) if s.state in ACTIVE]
    ended = any(status.state == JobState.DONE for status in statuses)
    if active and not in_page_run and (ended or _total(statuses) != before or any(live)):
        st.rerun()
    with st.container(border=True, key=f"{slot}_progress"):
        for request, status in zip(missing, statuses, strict=True):
            _one_line(slot, request, status)
        if active:
            st.button(
                "Stop",
                key=f"{slot}_stop",
                icon=":material/stop_circle:",
                on_click=_stop,
                args=(missing,),
                help=(
                    "What is finished is kept; you can continue later. What you asked for that "
                    "needs it stops too; what somebody else is waiting for goes on."
                ),
            )
    if (
        not active
        and not in_page_run
        and any(s.state in (*ACTIVE, JobState.DONE) for s in statuses)
    ):
        st.rerun()  # a button in here started it: this follows it once the page has run again


def _has_partial(request: Request[Any]) -> bool:
    return len(request.parts()) == 1 and request.read_partial(_store()[0]) is not None


def _one_line(slot: str, request: Request[Any], status: Status) -> None:
    if status.state == JobState.FAILED:
        st.error(words.plain(f"{request.title}: {status.error}"), icon=":material/error:")
        _again(slot, request, "Try again")
    elif status.state == JobState.STOPPED:
        why = f" ({status.error})" if status.error else ""
        parts = f"{status.done:.0f} of {status.total:.0f} parts"
        st.caption(words.plain(f"{request.title}: stopped at {parts}{why}."))
        _again(slot, request, "Go on")
    elif status.state == JobState.INTERRUPTED:
        why = status.error or "compute process ended"
        st.warning(words.plain(f"{request.title} was interrupted: {why}"))
        _again(slot, request, "Go on")
    elif status.state == JobState.MISSING:
        st.caption(f"{words.plain(request.title)}: not computed yet.")
        _again(slot, request, "Compute")
    else:
        share = min(1.0, status.done / status.total) if status.total else 0.0
        left = f" · about {status.eta:.0f} s left" if status.eta and status.eta > 2 else ""
        doing = f"{request.title} · {status.note or status.state}{left}"
        st.progress(share, text=words.plain(doing))


def _again(slot: str, request: Request[Any], label: str) -> None:
    st.button(
        words.plain(label),
        key=f"{slot}_{request.key[:12]}_again",
        icon=":material/play_arrow:",
        on_click=_submit,
        args=(request,),
    )


def _submit(request: Request[Any]) -> None:
    service().submit(request.job(), session.owner())


def _stop(missing: tuple[Request[Any], ...]) -> None:
    for request in missing:
        service().stop(request.job(), session.owner())
