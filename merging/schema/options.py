"""Options of methods and rules: read from a mapping, and checked against their own metadata.

An options record is a frozen dataclass; every field has a default, and its metadata hold a label
and a range (`min`, `max`) or `choices`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, fields
from typing import Any, TypeVar

from merging.schema.errors import UnknownNameError

Entry = TypeVar("Entry")


def look_up(table: Mapping[str, Entry], name: str, what: str) -> Entry:
    """Find the entry of that name.

    Args:
        table: Entries by name.
        name: What was asked for.
        what: What the entries are, for messages.

    Returns:
        The entry.

    Raises:
        UnknownNameError: If there is none.

    Example:
        >>> look_up({"ties": 1}, "ties", "rule")
        1
    """
    if name not in table:
        raise UnknownNameError(f"unknown {what} {name!r}; choose from {', '.join(table)}")
    return table[name]


def read_record(title: str, record: type, options: Mapping[str, Any] | None) -> Any:
    """Read an options record from a mapping; what is missing has its default.

    Args:
        title: Whose options they are, for messages.
        record: The dataclass.
        options: Values by option name.

    Returns:
        The record.

    Raises:
        UnknownNameError: If there is no such option, or an option's value is not among its choices
            or outside its range.

    Example:
        >>> from merging.schema.cards.matching import WeightOptions
        >>> read_record("Weight matching", WeightOptions, {"restarts": 1})
        WeightOptions(max_sweeps=100, restarts=1)
    """
    given = dict(options or {})
    known: dict[str, Field[Any]] = {f.name: f for f in fields(record)}
    for name, value in (options or {}).items():
        if name not in known:
            raise UnknownNameError(
                f"{title} has no option {name!r}; it has {', '.join(known) or 'none'}"
            )
        _check_value(title, name, value, known[name])
        kind: Any = type(known[name].default)
        given[name] = kind(value)  # 1 and 1.0 are one step size
    return record(**given)


def _check_value(title: str, name: str, value: Any, option: Field[Any]) -> None:
    metadata, kind = option.metadata, type(option.default)
    choices = metadata.get("choices")
    if choices is not None:
        if value not in choices:
            raise UnknownNameError(
                f"{title}, option {name!r}: got {value!r}, expected one of "
                f"{', '.join(map(repr, choices))}"
            )
    elif not _is_number(value, kind) or not metadata["min"] <= value <= metadata["max"]:
        what = "a whole number" if kind is int else "a number"
        raise UnknownNameError(
            f"{title}, option {name!r}: got {value!r}, expected {what} from "
            f"{metadata['min']} to {metadata['max']}"
        )


def _is_number(value: Any, kind: type) -> bool:
    allowed = int if kind is int else (int, float)
    return isinstance(value, allowed) and not isinstance(value, bool)
