"""Arithmetic on sizes, as graphs have it: `x.shape[0] * 2`; on bounded numbers and nothing else."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

_NAMES = (
    "add", "sub", "mul", "floordiv", "mod", "neg", "truediv", "pow",
    "eq", "ne", "lt", "le", "gt", "ge",
)  # fmt: skip
_LIMIT = 1 << 62
_MAX_EXPONENT = 8
_MAX_DEGREE = 16
_NUMBERS = (int, float, torch.SymInt, torch.SymFloat, torch.SymBool)


def _bounded(name: str) -> Callable[..., Any]:
    function = getattr(operator, name)

    def compute(*numbers: Any) -> Any:
        if not all(isinstance(number, _NUMBERS) for number in numbers):
            raise TypeError(f"{name} is computed of sizes, and it is given something else")
        if name == "pow" and not (isinstance(numbers[1], int) and 0 <= numbers[1] <= _MAX_EXPONENT):
            raise ValueError(f"a size is raised to the power {str(numbers[1])[:20]}")
        found = function(*numbers)
        if isinstance(found, (int, float)) and not abs(found) < _LIMIT:
            raise ValueError(f"{name} makes a size of {found:.1e}")
        return found

    return compute


FUNCTIONS: Mapping[str, Callable[..., Any]] = MappingProxyType({
    f"_operator.{name}": _bounded(name) for name in _NAMES
})


def degree(target: str, degrees: Sequence[int], exponent: Any) -> int:
    """Return the highest power of sizes in what an operation makes of sizes.

    Args:
        target: One of `FUNCTIONS`.
        degrees: Those of what it is given; 0 for plain numbers.
        exponent: What stands second.

    Returns:
        The power; symbolic sizes take memory that grows with it.

    Raises:
        ValueError: If it is more than a model's sizes have.
    """
    found = max(degrees, default=0)
    if target == "_operator.mul":
        found = sum(degrees)
    elif target == "_operator.pow":
        found = degrees[0] * (exponent if isinstance(exponent, int) else _MAX_DEGREE)
    if found > _MAX_DEGREE:
        raise ValueError(f"its graph multiplies more than {_MAX_DEGREE} sizes with each other")
    return found
