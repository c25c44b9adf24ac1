"""Find the prefix that wrappers put before all names of a state dict."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


_WRAPPERS = ("module.", "_orig_mod.")


def _prefix(names: list[str], *, lightning: bool) -> str:
    stripped = _wrappers(names, "")
    if lightning and names:
        first = names[0].removeprefix(stripped).split(".")[0] + "."
        # A list of layers is numbered: such a first part belongs to the network.
        if not first[:-1].isdecimal() and _all_have(names, stripped + first):
            stripped = _wrappers(names, stripped + first)
    return stripped


def _wrappers(names: list[str], stripped: str) -> str:
    while wrapper := next((w for w in _WRAPPERS if _all_have(names, stripped + w)), ""):
        stripped += wrapper
    return stripped


def _all_have(names: list[str], prefix: str) -> bool:
    return all(key.startswith(prefix) and key != prefix for key in names)
