"""Cards of the bundled pairs and families: architecture, data, recipes, accuracies, fingerprints.

Needs no torch, so that the interface process can list them without loading it.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from merging.schema.errors import UnknownNameError

ASSETS = Path(__file__).resolve().parents[3] / "assets"


@cache
def read_cards() -> dict[str, dict[str, Any]]:
    """Read all cards by the pair's name, in the order of menus."""
    cards = [json.loads(path.read_text("utf-8")) for path in ASSETS.glob("zoo/*/card.json")]
    return {card["name"]: card for card in sorted(cards, key=lambda card: card["position"])}


def list_pairs() -> list[str]:
    """List the names of the bundled pairs, in the order of menus."""
    return list(read_cards())


def read_card(name: str) -> dict[str, Any]:
    """Read the card of a bundled pair.

    Raises:
        UnknownNameError: If there is no such pair.
    """
    if name not in read_cards():
        raise UnknownNameError(f"unknown pair {name!r}; choose from {', '.join(read_cards())}")
    return read_cards()[name]


@cache
def read_family_cards() -> dict[str, dict[str, Any]]:
    """Read all cards of families by their name, in the order of menus."""
    cards = [json.loads(path.read_text("utf-8")) for path in ASSETS.glob("families/*/card.json")]
    return {card["name"]: card for card in sorted(cards, key=lambda card: card["position"])}


def list_families() -> list[str]:
    """List the names of the bundled families, in the order of menus."""
    return list(read_family_cards())


def read_family_card(name: str) -> dict[str, Any]:
    """Read the card of a bundled family: what it is, and all that is known of its models.

    Args:
        name: One of `list_families()`.

    Returns:
        `name`, `title`, `shows`, `kind`, `config`, `parameters`, `torch`; `data`, a list of what
        its models are tried on, the base's own set first, each with `name`, `title`, `fingerprint`
        and the sizes `train`, `validation`, `test`; `tasks`, those of them that models were
        fine-tuned on, by name; `base` and `joint` (or None) and `models`, each with `name`,
        `title`, `data` (names), `examples` (size of its training set), `recipe`, `seed`, `epoch`,
        `fingerprint` and `accuracy` on the test split of each set, by the set's name.

    Raises:
        UnknownNameError: If there is no such family.
    """
    cards = read_family_cards()
    if name not in cards:
        raise UnknownNameError(f"unknown family {name!r}; choose from {', '.join(cards)}")
    return cards[name]


@cache
def family_files() -> dict[str, Path]:
    """Return the file of every model of every family, by the model's fingerprint."""
    return {
        member["fingerprint"]: ASSETS / "families" / name / f"{member['name']}.safetensors"
        for name, card in read_family_cards().items()
        for member in (card["base"], *card["models"], card["joint"])
        if member is not None
    }
