"""One run of the command line: a store, the files that were given, and what was computed."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

from merging.files.data.bundled import DATASETS, load_dataset
from merging.files.data.user_data import own_data
from merging.files.user_function import is_function
from merging.results import requests, tasks
from merging.results.compute.run_piece import Context
from merging.results.compute.store import Store, open_default
from merging.results.recipe import recipe
from merging.results.requests import BroughtCheckpoint, Examples, Family, Request, Subject
from merging.results.uploads import keep
from merging.schema.cards.zoo import ASSETS, list_families, list_pairs
from merging.schema.errors import MergingError

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
        """Nothing is shown before it is done."""


class Session:
    """One run of the command line: a store, the files that were given, and what was computed.

    Args:
        store: Where results are kept; the app's own by default.
    """

    def __init__(self, store: Store | None = None) -> None:
        self.store = store or open_default(bundled=(ASSETS / "results",))[0]
        self.sources: dict[str, str] = {}
        self.notes: list[str] = []
        self.spec = ""
        self.prefixes: dict[str, str] = {"a": "", "b": ""}
        self.second_moments: tuple[str, ...] = ()
        self.recipe: dict[str, Any] = {}

    def subject(self, arguments: Namespace) -> Subject:
        """The two models, the data and the permutation spec that were named.

        Raises:
            MergingError: If they cannot be read, or do not fit.
        """
        found = self._models(arguments)
        text, freeze = self.spec, arguments.freeze
        if arguments.spec:
            text = Path(arguments.spec).read_text("utf-8")
        if not text and not freeze:
            return found
        spec = keep.keep_spec(text, found.config, self.store, freeze=freeze)
        path = self.store.file(spec.fingerprint) if spec.fingerprint else None
        self.spec = path.read_text("utf-8") if path is not None else ""
        self.notes.append(f"A chosen spec: {spec.groups} groups, {spec.units:,} units.")
        return replace(found, spec=spec.fingerprint)

    def _models(self, arguments: Namespace) -> Subject:
        if len(arguments.models) == 1:
            name = arguments.models[0]
            if name not in list_pairs():
                raise MergingError(
                    f"{name!r} is not a bundled pair; give two checkpoints, or one of "
                    f"{', '.join(list_pairs())}"
                )
            self.sources["pair"] = name
            return requests.bundled_subject(name)
        if len(arguments.models) != 2:
            raise MergingError("give two checkpoints, or the name of one bundled pair")
        architecture, found = _architecture(arguments), []
        for letter, path in zip("ab", arguments.models, strict=True):
            found.append(self._checkpoint(letter, Path(path), architecture))
            architecture = architecture or found[0].config
        data, data_fingerprint = self._data(arguments.data, found[0].config)
        return Subject(
            found[0].config,
            found[0].fingerprint,
            found[1].fingerprint,
            data,
            data_fingerprint,
        )

    def family(self, arguments: Namespace) -> Family:
        """The models that were named, their base and their data.

        Raises:
            MergingError: If they cannot be read, or do not fit.
        """
        named = arguments.models[0] if len(arguments.models) == 1 else ""
        if named in list_families():
            self.sources["family"] = named
            return requests.bundled_family(named)
        if named in list_pairs():
            self.sources["family_of_pair"] = named
            return requests.pair_family(requests.bundled_subject(named))
        if named:
            raise MergingError(
                f"{named!r} is no bundled family or pair; give two checkpoints or more, or one of "
                f"{', '.join([*list_families(), *list_pairs()])}"
            )
        paths = [*arguments.models, *([arguments.base] if arguments.base else [])]
        architecture, found = _architecture(arguments), []
        for k, path in enumerate(paths):
            found.append(self._checkpoint(str(k), Path(path), architecture))
            architecture = architecture or found[0].config
        self.second_moments = tuple(one.second_moment for one in found)
        count = len(arguments.models)
        self.sources["models"] = str(count)
        data = self._data(arguments.data, found[0].config)
        return requests.brought_family(
            found[:count],
            found[count] if arguments.base else None,
            Examples(*data) if data[0] else None,
        )

    def _checkpoint(self, letter: str, path: Path, architecture: str) -> BroughtCheckpoint:
        found = keep.keep_checkpoint(path, path.name, self.store, architecture=architecture)
        self.sources[f"model_{letter}"] = str(path)
        self.prefixes[letter] = found.prefix
        self.notes += [f"{path.name}: {note}" for note in found.notes]
        return found

    def _data(self, given: str | None, config: str) -> tuple[str, str]:
        if not given:
            return "", ""
        if given in DATASETS:
            return given, load_dataset(given).fingerprint
        path = Path(given)
        if is_function(given):
            found = keep.keep_arrays(own_data(given), given, config, self.store)
        else:
            found = keep.keep_data(path, path.name, config, self.store)
        self.sources["data"] = given
        self.notes += found.notes
        return found.fingerprint, found.fingerprint

    def compute(self, request: Request[Any]) -> Any:
        """The result of a request, computed here if it is not in the store; notes the recipe.

        Raises:
            MergingError: If it cannot be computed.
        """
        start = time.perf_counter()
        for needed in request.needs():
            self.compute(needed)
        for piece in request.job().pieces:
            if self.store.has([piece.key]):
                continue
            context = _Progress(self.store, piece.key, request.title)
            arrays, meta = tasks.run_piece(piece.payload, context)
            self.store.put(piece.key, arrays, meta)
        if sys.stderr.isatty():
            sys.stderr.write("\r\033[K")
        entries = [entry for entry in request.entries(self.store) if entry is not None]
        seconds = time.perf_counter() - start
        self.recipe = recipe(request, entries, self.sources, seconds, self.spec)
        return request.result(entries)

    def write_recipe(self, path: Path) -> None:
        """Write the recipe of the last result."""
        path.write_text(json.dumps(self.recipe, indent=2) + "\n", "utf-8")


def _architecture(arguments: Namespace) -> str:
    """What was said of the architecture, as checkpoints are read with it."""
    given = arguments.model or ""
    if is_function(given):
        return requests.canonical({"architecture": "own", "function": given})
    return str(given)
