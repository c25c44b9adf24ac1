"""What an address asks for: read in one place, and refused in words where it cannot be followed.

Everything else in an address belongs to a widget that has a list of choices, and Streamlit drops
what is not on that list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from merging.schema.legible import legible

MOST_SEED = 2**31 - 1
_DIGITS = len(str(MOST_SEED))


class Params(Protocol):
    """The parameters of an address."""

    def get_all(self, key: str) -> list[str]:
        """Return all values of one parameter."""


@dataclass(frozen=True)
class Address:
    """What an address asks for, as far as it can be followed.

    Attributes:
        pair: A pair of models.
        methods: Matching methods, in the order of menus.
        seed: From 0 to `MOST_SEED`.
        refused: Sentences about what could not be followed.
    """

    pair: str
    methods: tuple[str, ...]
    seed: int
    refused: tuple[str, ...] = ()


def read(params: Params, pairs: Sequence[str], methods: Sequence[str], usual: Address) -> Address:
    """Read an address.

    Args:
        params: Its parameters; may hold anything.
        pairs: Pairs that there are.
        methods: Methods that there are.
        usual: What is chosen where the address says nothing that can be followed.

    Returns:
        What it asks for.
    """
    refused: list[str] = []
    pair = _one_of(_first(params, "pair"), pairs, usual.pair, "pair of models", refused)
    named = params.get_all("methods")
    known = tuple(name for name in methods if name in named)
    strange = [name for name in named if name not in methods]
    if strange:
        refused.append(_words("matching method", strange[0], f"one of {', '.join(methods)}"))
    seed = _seed(_first(params, "seed"), usual.seed, refused)
    return Address(pair=pair, methods=known or usual.methods, seed=seed, refused=tuple(refused))


def _first(params: Params, key: str) -> str | None:
    return next(iter(params.get_all(key)), None)


def _one_of(
    value: str | None, choices: Sequence[str], usual: str, what: str, refused: list[str]
) -> str:
    if value is None or value in choices:
        return usual if value is None else value
    refused.append(_words(what, value, "one of the list on the left"))
    return usual


def _seed(value: str | None, usual: int, refused: list[str]) -> int:
    if value is None:
        return usual
    is_short = value.isascii() and value.isdecimal() and len(value) <= _DIGITS
    if is_short and int(value) <= MOST_SEED:
        return int(value)
    refused.append(_words("seed", value, f"a whole number from 0 to {MOST_SEED:,}"))
    return usual


def _words(what: str, value: str, wanted: str) -> str:
    shown = legible(value, most=60, lines=False)
    return f"The address asks for the {what} {shown!r}, expected {wanted}; the usual one is used."
