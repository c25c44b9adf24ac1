"""What is made of the data that a person gives, whatever file they came in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from merging.schema.errors import DataError

TaskKind = Literal["classification", "regression", "tokens"]

MAX_BYTES = 512 * 1024**2
_LARGEST_LABEL = 2**31
_SHOWN = 5


@dataclass(frozen=True, eq=False)
class ExampleArrays:
    """Examples from files or functions of a person.

    Attributes:
        x: Inputs: float32 `[n, ...]` (images `[n, channels, height, width]` in [0, 1]), or int64
            tokens `[n, length]`.
        y: Targets: int64 `[n]` class numbers, float32 `[n]` or `[n, k]` numbers, or int64
            `[n, length]`, the token that follows each token of `x`.
        kind: Which of these three; it says which loss fits: cross-entropy, squared error, or
            cross-entropy of the next token.
        classes: Classes that labels or tokens go up to; of numbers, how many there are per example.
        class_names: Their names, where the data have some; empty otherwise.
        notes: What was done to the data on the way, in sentences.
        split: How many of the first examples the data call their training part, if they do.
    """

    x: NDArray
    y: NDArray
    kind: TaskKind
    classes: int
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    split: int | None = None


def with_targets(
    x: NDArray[np.float32], y: NDArray, name: str, kind: TaskKind | None = None
) -> ExampleArrays:
    """Find out what targets are, by their dtype, shape and values.

    Whole numbers from 0, one per example, are class numbers, of whatever dtype; rows of one-hot
    vectors are too. All other floats are numbers to predict.

    Args:
        x: Inputs, checked.
        y: As the file holds it: real numbers `[n]` or `[n, k]`.
        name: What to call the file in messages.
        kind: What they are, where it is known.

    Returns:
        Inputs and targets.

    Raises:
        DataError: If there is not one target per example, or the targets fit neither.

    Example:
        >>> with_targets(np.zeros((2, 3), np.float32), np.array([0.5, 1.0]), "mine").kind
        'regression'
    """
    if y.ndim not in {1, 2} or len(y) != len(x) or y.size == 0:
        raise DataError(
            f"{name}: the targets have shape {list(y.shape)} for {len(x)} examples; expected one "
            "per example, [n], or [n, k] to predict k numbers"
        )
    if kind != "regression":
        if _one_hot(y):
            note = "The rows of y are one-hot; the place of the one is the class."
            return _classified(x, y.argmax(1), (note,))
        if y.ndim == 1 and not _unlike_labels(y).size:
            return _classified(x, y.astype(np.int64), ())
    if kind == "classification" or (y.dtype.kind != "f" and kind is None):
        wrong = _unlike_labels(y) if y.ndim == 1 else y
        raise DataError(
            f"{name}: 'y' holds {wrong.size} values that are not class numbers: {few(wrong)}; "
            "labels must be whole numbers from 0, one per example. If they are numbers to "
            "predict, save them as floats"
        )
    numbers = y.astype(np.float32)
    if not np.isfinite(numbers).all():
        raise DataError(
            f"{name}: 'y' holds {(~np.isfinite(numbers)).sum()} values that are NaN, infinite or "
            "too large for float32; leave those examples out"
        )
    return ExampleArrays(
        x=x, y=numbers, kind="regression", classes=1 if y.ndim == 1 else y.shape[1]
    )


def fitting(n: int, first: int, example_bytes: int, max_bytes: int) -> tuple[slice, slice]:
    """Choose which examples of two parts to keep, so that they fit: all of the second, if any can.

    Args:
        n: Examples in both parts.
        first: Examples in the first part.
        example_bytes: What one takes.
        max_bytes: What all may take.

    Returns:
        What to keep of the first and of the second part.

    Example:
        >>> fitting(10, 6, 1, 7)
        (slice(None, 3, None), slice(None, 4, None))
    """
    room = max(1, max_bytes // max(1, example_bytes))
    second = min(n - first, room)
    return slice(None, min(first, room - second)), slice(None, second)


def few(values: NDArray) -> str:
    """List the smallest distinct values, at most five."""
    unique = np.unique(values)
    shown = ", ".join(str(value) for value in unique[:_SHOWN].tolist())
    return shown + (", …" if len(unique) > _SHOWN else "")


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """Cut names of classes to a length that screens can show."""
    return tuple(name[:100] for name in names)


def _classified(x: NDArray, y: NDArray, notes: tuple[str, ...]) -> ExampleArrays:
    return ExampleArrays(
        x=x,
        y=y.astype(np.int64),
        kind="classification",
        classes=int(y.max()) + 1,
        class_names=(),
        notes=notes,
    )


def _one_hot(y: NDArray) -> bool:
    if y.ndim != 2 or y.shape[1] < 2:
        return False
    return bool(((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all())


def _unlike_labels(y: NDArray) -> NDArray:
    return y[~((y >= 0) & (y < _LARGEST_LABEL) & (y == np.trunc(y)))]
