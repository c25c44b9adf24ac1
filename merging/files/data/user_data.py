"""Examples that a function of whoever started this process makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from merging.files.data.arrays import ExampleArrays, with_targets
from merging.files.data.npz import real_inputs
from merging.files.user_function import OWN_DATA, call_own
from merging.schema.errors import DataError

_RETURNS = (
    "it has to return inputs and targets, `return x, y`, or those of a training and of a test "
    "part, `return (x, y), (x_test, y_test)`: arrays or tensors"
)


def own_data(function: str) -> ExampleArrays:
    """Return the examples that a function makes.

    Args:
        function: `package.module:function`, as `$ONE_BASIN_DATA` names it. It returns inputs
            `[n, ...]` and targets (class numbers `[n]`, numbers to predict `[n]` or `[n, k]`, or
            of tokens `[n, length]` the next ones `[n, length]`), or two such pairs.

    Returns:
        The examples, checked as those in files are.

    Raises:
        MergingError: If it is another function, or fails.
        DataError: If it returns anything else.
    """
    found = call_own(function, OWN_DATA)
    if not isinstance(found, (tuple, list)) or len(found) != 2:
        raise DataError(f"{function} returned {_what(found)}; {_RETURNS}")
    parts = found if all(isinstance(part, (tuple, list)) for part in found) else [found]
    if any(len(part) != 2 for part in parts):
        raise DataError(f"{function} returned a part of {_what(parts[0])}; {_RETURNS}")
    pairs = [(_array(x, function), _array(y, function)) for x, y in parts]
    split = len(pairs[0][0]) if len(pairs) == 2 else None
    try:
        x, y = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
    except ValueError as error:
        raise DataError(f"{function}: its two parts do not fit ({error})") from error
    return _examples(x, y, function, split)


def _examples(x: NDArray, y: NDArray, name: str, split: int | None) -> ExampleArrays:
    if x.dtype.kind in "iu" and x.dtype != np.uint8 and x.ndim == 2 and y.shape == x.shape:
        if int(min(x.min(initial=0), y.min(initial=0))) < 0 or not x.size:
            raise DataError(
                f"{name}: tokens must be whole numbers from 0, and there must be at least one"
            )
        classes = int(max(x.max(), y.max())) + 1
        whole = x.astype(np.int64), y.astype(np.int64)
        return ExampleArrays(*whole, "tokens", classes, split=split)
    found = with_targets(real_inputs(x, name), y, name)
    return ExampleArrays(
        x=found.x, y=found.y, kind=found.kind, classes=found.classes, notes=found.notes, split=split
    )


def _array(value: Any, name: str) -> NDArray:
    array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        raise DataError(f"{name} returned {_what(value)}; {_RETURNS}")
    return array


def _what(value: object) -> str:
    shown = f" of {len(value)}" if isinstance(value, (tuple, list)) else ""
    return f"a {type(value).__name__}{shown}"
