"""Tables as text (CSV): one row per example, one column that is to be predicted."""

from __future__ import annotations

import csv
import io
from array import array
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from merging.files.data.arrays import ExampleArrays, TaskKind, check_names, with_targets
from merging.schema.errors import DataError

MAX_COLUMNS = 10_000

_MAX_TEXT = 300_000_000
_MAX_ROW = 4_000_000
_MAX_CLASSES = 1000
_TARGETS = ("y", "label", "target")
_BYTE_ORDERS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


def read_table(
    data: bytes, name: str, max_bytes: int, kind: TaskKind | None = None
) -> ExampleArrays:
    r"""Read a table of numbers.

    The first line is a header if any of its fields is not a number where the second line's is, or
    one of them is called y, label or target. The column called so is the target, the last one
    otherwise. Commas, semicolons and tabs may separate the fields.

    Args:
        data: The text.
        name: What to call the file in messages.
        max_bytes: What the features may take as float32.
        kind: What the targets are, where it is known.

    Returns:
        float32 `[n, columns - 1]` and the targets; text labels become the numbers of their sorted
        names.

    Raises:
        DataError: If it is not text or not a table, or a feature is missing or not a number.

    Example:
        >>> found = read_table(b"height,label\n1.5,cat\n2,ant\n", "mine.csv", 1000)
        >>> found.x.tolist(), found.y.tolist(), found.class_names
        ([[1.5], [2.0]], [1, 0], ('ant', 'cat'))
    """
    text = _text(data, name)
    rows = _rows(text, name)
    first = next(rows, None)
    second = next(rows, None)
    if first is None or second is None:
        raise DataError(f"{name}: holds fewer than two lines; expected one row per example")
    columns = len(first)
    if not 2 <= columns <= MAX_COLUMNS:
        raise DataError(
            f"{name}: the first line has {columns:,} fields; expected between 2 and "
            f"{MAX_COLUMNS:,}: the features, and the target in the last one. Fields are separated "
            "by commas, semicolons or tabs"
        )
    header = _is_header(first, second)
    target = _target(first) if header else columns - 1
    features, targets = array("f"), list[str]()
    start = [second] if header else [first, second]
    for line, row in enumerate(_chain(start, rows), start=2 if header else 1):
        _check_row(row, line, columns, name)
        targets.append(row.pop(target))
        try:
            features.extend(map(float, row))
        except (ValueError, OverflowError):
            _refuse_field(row, line, first if header else None, target, name)
        if 4 * len(features) > max_bytes:
            raise DataError(
                f"{name}: the features take more than {max_bytes:,} bytes; use fewer rows"
            )
    x = np.frombuffer(features, np.float32).reshape(-1, columns - 1).copy()
    _check_finite(x, 2 if header else 1, name)
    called = repr(first[target][:40]) if header else "the last column"
    return _with_targets(x, targets, called, name, kind)


def _text(data: bytes, name: str) -> str:
    if len(data) > _MAX_TEXT:
        raise DataError(f"{name}: the table has {len(data):,} bytes, limit {_MAX_TEXT:,}")
    try:
        text = data.decode(_BYTE_ORDERS.get(data[:2], "utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}: this is neither data of a kind that is known (.npz, images, idx, CIFAR) nor "
            "a table as UTF-8 text; save it as one of these"
        ) from error
    if "\0" in text[:10_000]:
        raise DataError(f"{name}: this is not a table: it holds bytes that are not text")
    return text


def _rows(text: str, name: str) -> Iterator[list[str]]:
    line = text[:_MAX_ROW].split("\n", 1)[0]
    if len(line) >= _MAX_ROW:
        raise DataError(f"{name}: its first line has more than {_MAX_ROW:,} characters")
    separator = max(",;\t", key=line.count)
    if line.count(separator) > 2 * MAX_COLUMNS:
        raise DataError(
            f"{name}: the first line has about {line.count(separator) + 1:,} fields (limit "
            f"{MAX_COLUMNS:,}); one row is one example, and one column is one feature"
        )
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        yield from (row for row in reader if row)
    except csv.Error as error:
        raise DataError(
            f"{name}: line {reader.line_num} is not a row of a table ({error})"
        ) from error


def _chain(start: list[list[str]], rest: Iterator[list[str]]) -> Iterator[list[str]]:
    yield from start
    yield from rest


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _is_header(first: list[str], second: list[str]) -> bool:
    if any(field.strip().lower() in _TARGETS for field in first):
        return True
    return any(
        not _is_number(a) and _is_number(b) for a, b in zip(first, second, strict=False)
    )  # fmt: skip


def _target(header: list[str]) -> int:
    names = [field.strip().lower() for field in header]
    return next((names.index(t) for t in _TARGETS if t in names), len(header) - 1)


def _check_row(row: list[str], line: int, columns: int, name: str) -> None:
    if len(row) != columns:
        raise DataError(
            f"{name}: row {line} has {len(row):,} fields, and the first has {columns:,}; all must "
            "have the same number"
        )


def _refuse_field(
    row: list[str], line: int, header: list[str] | None, target: int, name: str
) -> None:
    place = next(k for k, field in enumerate(row) if not _is_number(field))
    column = place + (place >= target)
    called = repr(header[column][:40]) if header else f"{column + 1}"
    what = f"holds {row[place][:40]!r}" if row[place].strip() else "is empty"
    raise DataError(
        f"{name}: column {called} of row {line} {what}; features must be numbers: encode text as "
        "numbers, fill in what is missing, or leave the row or column out"
    )


def _check_finite(x: NDArray, first_row: int, name: str) -> None:
    wrong = ~np.isfinite(x).all(1)
    if wrong.any():
        raise DataError(
            f"{name}: {wrong.sum()} rows hold NaN, infinity or numbers too large for float32, the "
            f"first of them row {int(wrong.argmax()) + first_row}; leave them out"
        )


def _with_targets(
    x: NDArray[np.float32], targets: list[str], called: str, name: str, kind: TaskKind | None
) -> ExampleArrays:
    note = f"{called} is the target, the other {x.shape[1]} columns are features."
    note = note[0].upper() + note[1:]
    if all(_is_number(field) for field in targets):
        numbers = np.array([float(field) for field in targets])
        found = with_targets(x, numbers, name, kind)
        return ExampleArrays(
            x=x,
            y=found.y,
            kind=found.kind,
            classes=found.classes,
            class_names=(),
            notes=(note, *found.notes),
        )
    classes = sorted({field.strip() for field in targets})
    if kind == "regression" or len(classes) > _MAX_CLASSES or "" in classes:
        raise DataError(
            f"{name}: the target, {called}, holds {len(classes):,} different texts such as "
            f"{classes[-1][:40]!r}; expected numbers, or the names of at most {_MAX_CLASSES} "
            "classes, none empty"
        )
    numbered = {label: k for k, label in enumerate(classes)}
    y = np.array([numbered[field.strip()] for field in targets], np.int64)
    shown = ", ".join(f"{k} = {label[:30]}" for k, label in enumerate(classes[:5]))
    more = ", …" if len(classes) > 5 else ""
    return ExampleArrays(
        x=x, y=y, kind="classification", classes=len(classes), class_names=check_names(classes),
        notes=(note, f"Its texts became class numbers in sorted order: {shown}{more}."),
    )  # fmt: skip
