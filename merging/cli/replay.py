"""Make a result again from the recipe that lies beside it, and compare the bytes."""

from __future__ import annotations

import json
import tempfile
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from merging.cli.session import Session
from merging.results import requests
from merging.results.compute.store import Store
from merging.results.recipe import compare
from merging.results.requests import Subject
from merging.schema.errors import MergingError


def replay(arguments: Namespace, _: Session) -> dict[str, Any]:
    """Make a result again from its recipe, and compare.

    Raises:
        MergingError: If the recipe cannot be read, or its files are not what they were.
    """
    old = _read_recipe(Path(arguments.recipe))
    request = requests.from_payload(old["request"])
    with tempfile.TemporaryDirectory() as folder:  # an empty store: nothing is taken from before
        fresh = Session(Store(Path(folder)))
        fresh.spec = old.get("spec", "")
        family = _family_of(old["request"])
        if family is None:
            _restore_pair(old, fresh, arguments)
        else:
            _restore_family(old["sources"], family, fresh, arguments)
        fresh.compute(request)
        new = fresh.recipe
        fresh.store.close()
    differences = compare(old, new)
    return {"equal": not differences, "differences": differences, "result": new["result"]}


def _restore_pair(old: Mapping[str, Any], fresh: Session, arguments: Namespace) -> None:
    """Read both models again, and check that they are what they were.

    Raises:
        MergingError: If one is another model now.
    """
    sources = old["sources"]
    pair = [sources["pair"]] if "pair" in sources else None
    given = Namespace(
        models=pair or [sources["model_a"], sources["model_b"]],
        model=arguments.model,
        data=sources.get("data"),
        spec=None,
        freeze=[],
    )
    if pair is not None and not fresh.spec:
        return
    now, then = fresh.subject(given), Subject(**old["request"]["subject"])
    for letter in ("a", "b"):
        if getattr(now, f"model_{letter}") != getattr(then, f"model_{letter}"):
            raise MergingError(_not_the_same(sources[f"model_{letter}"]))


def _family_of(request: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The family that a request is about, also where it is about a file of a fusion."""
    named = request if "family" in request else request.get("fusion", {})
    found: Mapping[str, Any] | None = named.get("family")
    return found


def _restore_family(
    sources: Mapping[str, str], then: Mapping[str, Any], fresh: Session, arguments: Namespace
) -> None:
    """Read all models and the base again, and check that they are what they were.

    Raises:
        MergingError: If one is another model now.
    """
    if "models" not in sources:
        return  # bundled ones are where they were
    count = int(sources["models"])
    paths = [sources[f"model_{k}"] for k in range(count)]
    base = sources.get(f"model_{count}")
    given = Namespace(models=paths, base=base, model=arguments.model, data=sources.get("data"))
    now = fresh.family(given)
    for path, mark, before in zip(paths, now.models, then["models"], strict=True):
        if mark != before:
            raise MergingError(_not_the_same(path))
    if now.base != then["base"]:
        raise MergingError(_not_the_same(str(base)))


def _not_the_same(path: str) -> str:
    return (
        f"{path} is not the model that the recipe was made with (another fingerprint); put the "
        "file back"
    )


def _read_recipe(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
        if found["one_basin_recipe"] == 1 and {"request", "sources", "result"} <= set(found):
            return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MergingError(f"{path}: this is no recipe ({error})") from error
    raise MergingError(f"{path}: this is no recipe of this version")
