"""Records as entries of the store and back, for the shapes that most kinds of results have.

A request's `encode` and `decode` are one pair: what a task found, as it is stored, and read again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, fields
from typing import Any, TypeVar

import numpy as np

from merging.results.compute.entry import Entry
from merging.schema.records.tupled import tupled

Record = TypeVar("Record")


def flat_entry(record: Any) -> Entry:
    """Return a record as an entry; its fields are arrays and plain values."""
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    return Entry(arrays, {name: value for name, value in values.items() if name not in arrays})


def flat_record(kind: type[Record], entry: Entry) -> Record:
    """Return the record that `flat_entry` wrote."""
    return kind(**entry.arrays, **tupled(entry.meta))


def rows_entry(records: Iterable[Any]) -> Entry:
    """Return records of plain values as an entry."""
    return Entry({}, {"rows": [asdict(record) for record in records]})


def row_records(kind: type[Record], entry: Entry) -> list[Record]:
    """Return the records that `rows_entry` wrote."""
    return [kind(**tupled(row)) for row in entry.meta["rows"]]
