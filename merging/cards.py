"""The cards of the bundled pairs: architecture, data, recipe, accuracies and fingerprints.

Needs no torch, so that the interface process can list the pairs without loading it.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from merging.errors import UnknownNameError

ASSETS = Path(__file__).resolve().parents[1] / "assets"


@cache
def read_cards() -> dict[str, dict[str, Any]]:
    """All cards by the pair's name, in the order of menus."""
    cards = [json.loads(path.read_text("utf-8")) for path in ASSETS.glob("zoo/*/card.json")]
    return {card["name"]: card for card in sorted(cards, key=lambda card: card["position"])}


def list_pairs() -> list[str]:
    """Names of the bundled pairs, in the order of menus."""
    return list(read_cards())


def read_card(name: str) -> dict[str, Any]:
    """The card of a bundled pair.

    Raises:
        UnknownNameError: If there is no such pair.
    """
    if name not in read_cards():
        raise UnknownNameError(f"unknown pair {name!r}; choose from {', '.join(read_cards())}")
    return read_cards()[name]
