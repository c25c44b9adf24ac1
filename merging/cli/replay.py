"""Make a result again from the recipe that lies beside it, and compare the bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from merging.cli import wanted
from merging.cli.opened import Origin, open_models, open_pair
from merging.cli.session import Answer, Session
from merging.cli.wanted import Named
from merging.results.compute.store import Store
from merging.results.recipe import Recipe, compare, read_recipe
from merging.results.requests import Family, Request, Subject
from merging.schema.errors import MergingError


def replay(asked: wanted.Replay, _: Session) -> Answer:
    """Make a result again from its recipe, and compare.

    Raises:
        MergingError: If the recipe cannot be read, or its files are not what they were.
    """
    old = read_recipe(Path(asked.recipe))
    # An empty store: nothing is taken from before.
    with tempfile.TemporaryDirectory() as folder, closing(Store(Path(folder))) as store:
        _restore(old, asked.architecture, store)
        computed = Session(store).run(old.request)
    new = computed.recipe(Origin(old.sources, spec=old.spec))
    differences = compare(old, new)
    found = {"equal": not differences, "differences": differences, "result": new.result}
    return Answer(found, recipe=new, failed=bool(differences))


def _restore(old: Recipe, architecture: str, store: Store) -> None:
    """Read again whatever the request is about; bundled models are where they were."""
    family = _family_of(old.request)
    if family is not None:
        if "models" in old.sources:
            _restore_family(old, family, architecture, store)
    elif "pair" not in old.sources or old.spec:
        _restore_pair(old, architecture, store)


def _restore_pair(old: Recipe, architecture: str, store: Store) -> None:
    """Read both models again, and check that they are what they were.

    Raises:
        MergingError: If one is another model now.
    """
    sources = old.sources
    is_bundled = "pair" in sources
    names = [sources["pair"]] if is_bundled else [sources["model_a"], sources["model_b"]]
    named = Named(
        models=tuple(names),
        architecture=architecture,
        data=sources.get("data", ""),
        spec=old.spec,
    )
    now, then = open_pair(named, store).subject, _subject_of(old.request)
    _check(names * 2 if is_bundled else names, _marks(now), _marks(then))


def _restore_family(old: Recipe, then: Family, architecture: str, store: Store) -> None:
    """Read all models and the base again, and check that they are what they were.

    Raises:
        MergingError: If one is another model now.
    """
    sources, count = old.sources, int(old.sources["models"])
    paths = [sources[f"model_{k}"] for k in range(count)]
    base = sources.get(f"model_{count}", "")
    named = Named(
        models=tuple(paths),
        architecture=architecture,
        data=sources.get("data", ""),
        base=base,
    )
    now = open_models(named, store).family
    _check([*paths, base], [*now.models, now.base], [*then.models, then.base])


def _check(paths: Sequence[str], now: Sequence[str], then: Sequence[str]) -> None:
    for path, mark, before in zip(paths, now, then, strict=True):
        if mark != before:
            raise MergingError(
                f"{path} is not the model that the recipe was made with (another fingerprint); "
                "put the file back"
            )


def _marks(subject: Subject) -> list[str]:
    return [subject.model_a, subject.model_b]


def _subject_of(request: Request[Any]) -> Subject:
    subject = getattr(request, "subject", None)
    if not isinstance(subject, Subject):
        raise MergingError(f"no command makes the task {request.task!r}, so it cannot be replayed")
    return subject


def _family_of(request: Request[Any]) -> Family | None:
    """Return the family that a request is about, also where it is about a file of a fusion."""
    found: Family | None = getattr(getattr(request, "fusion", request), "family", None)
    return found
