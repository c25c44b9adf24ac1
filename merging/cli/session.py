"""Compute requests here and now, into the same store as the app's."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from merging.cli.opened import Origin
from merging.results import tasks
from merging.results.compute.entry import Entry
from merging.results.compute.run_piece import Context, in_words, is_out_of_memory
from merging.results.compute.store import Store, open_default
from merging.results.recipe import Recipe, result_digest, versions
from merging.results.requests import Request
from merging.schema.cards.zoo import ASSETS
from merging.schema.errors import ComputeError

_BAR = 30
_REPORT_SECONDS = 0.2


class _Progress(Context):
    """Progress as a bar on the terminal, where there is one."""

    def __init__(self, store: Store, key: str, title: str) -> None:
        super().__init__(store, key)
        self._title, self._shown = title, 0.0

    def report(self, done: float, total: float, note: str = "") -> None:
        """Draw the bar."""
        now = time.monotonic()
        if not sys.stderr.isatty() or now - self._shown < _REPORT_SECONDS:
            return
        self._shown = now
        filled = round(_BAR * done / total) if total else 0
        bar = "#" * filled + "." * (_BAR - filled)
        sys.stderr.write(f"\r{self._title} [{bar}] {note[:40]:40}")
        sys.stderr.flush()

    def flush(self) -> None:
        """Do nothing: a partial result is not shown."""


@dataclass(frozen=True)
class Computed:
    """A result, and how it came to be.

    Attributes:
        request: What was asked for.
        entries: What came out, piece by piece.
        seconds: How long it took.
    """

    request: Request[Any]
    entries: tuple[Entry, ...]
    seconds: float

    @property
    def result(self) -> Any:
        """The result itself."""
        return self.request.result(list(self.entries))

    def recipe(self, origin: Origin) -> Recipe:
        """Return the recipe of the result.

        Args:
            origin: Where its models and data come from.

        Returns:
            The recipe.
        """
        return Recipe(
            request=self.request,
            sources=origin.sources,
            spec=origin.spec,
            versions=versions(),
            seconds=self.seconds,
            result=result_digest(self.entries),
        )


@dataclass(frozen=True)
class Session:
    """One run of the command line.

    Attributes:
        store: Where results are kept.
    """

    store: Store

    def run(self, request: Request[Any]) -> Computed:
        """Compute whatever of a request is not in the store.

        Args:
            request: What is asked for.

        Returns:
            What came out.

        Raises:
            MergingError: If it cannot be computed.
        """
        start = time.perf_counter()
        self._fill(request)
        entries = tuple(entry for entry in request.entries(self.store) if entry is not None)
        return Computed(request, entries, time.perf_counter() - start)

    def compute(self, request: Request[Any]) -> Any:
        """Return the result of a request, computed here if it is not in the store.

        Args:
            request: What is asked for.

        Returns:
            The result.

        Raises:
            MergingError: If it cannot be computed.
        """
        return self.run(request).result

    def _fill(self, request: Request[Any]) -> None:
        for needed in request.needs():
            self._fill(needed)
        for piece in request.job().pieces:
            if self.store.has([piece.key]):
                continue
            context = _Progress(self.store, piece.key, request.title)
            try:
                arrays, meta = tasks.run_piece(piece.payload, context)
            except Exception as error:
                if is_out_of_memory(error):
                    raise ComputeError(in_words(error)) from error
                raise
            self.store.put(piece.key, arrays, meta)
        if sys.stderr.isatty():
            sys.stderr.write("\r\033[K")


def open_session() -> Session:
    """Open a session whose results are kept where the app keeps its own."""
    return Session(open_default(bundled=(ASSETS / "results",))[0])


@dataclass(frozen=True)
class Answer:
    """What a command says.

    Attributes:
        found: Values by name, for JSON or for lines of text.
        notes: What was done on reading the files, in sentences.
        recipe: The recipe of the result; None where there is none.
        failed: Whether the program's exit code is to say that something differs.
    """

    found: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    recipe: Recipe | None = None
    failed: bool = False
