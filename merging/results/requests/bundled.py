"""Whether a request is about bundled things alone, or anything in it was uploaded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from merging.schema.cards.zoo import read_cards, read_family_cards

_FINGERPRINT = re.compile("[0-9a-f]{64}")
_GIVEN = ("upload", "file", "function")
_ARCHITECTURES = ("config", "configs", "architecture")


def is_bundled(payload: Any) -> bool:
    """Return whether every model, architecture and data set in a payload ships with the app.

    Args:
        payload: JSON values of a request. What is not known to be bundled counts as uploaded.
    """
    fingerprints, configs = _known()
    for name, value in _named_strings(payload, ""):
        if name in _GIVEN and value:
            return False
        if name in _ARCHITECTURES and value not in configs:
            return False
        if _FINGERPRINT.fullmatch(value) and value not in fingerprints:
            return False
    return True


@cache
def _known() -> tuple[frozenset[str], frozenset[str]]:
    """Return the fingerprints and architectures of all cards."""
    cards = [*read_cards().values(), *read_family_cards().values()]
    found = {value for card in cards for _, value in _named_strings(card, "")}
    fingerprints = {value for value in found if _FINGERPRINT.fullmatch(value)}
    configs = {json.dumps(c["config"], sort_keys=True, separators=(",", ":")) for c in cards}
    return frozenset(fingerprints), frozenset(configs)


def _named_strings(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Yield all strings in JSON values, each with the name of the field that it is in.

    Yields:
        Name and string.
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _named_strings(item, key)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _named_strings(item, name)
    elif isinstance(value, str):
        yield name, value
