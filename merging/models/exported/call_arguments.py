"""What the arguments of an operator in a stranger's graph may be, by the operator's schema.

Types are those of the schema and nothing that converts to them; numbers and lists are bounded, so
that no kernel computes with sizes that overflow; what would draw random numbers, or write where
the schema does not say so, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch._ops import OpOverload

from merging.models.exported.allowed_operators import TEXTS

MAX_AXES = 12
_MAX_LIST = 4096
_LIMIT = 1 << 31
_INT64 = 1 << 63
_SCALE = 1 << 10
# Whose ends may be "as far as there is".
_POSITIONS = ("start", "end")
_LONG_LISTS = ("split_size", "split_sizes", "indices", "tensors")
_EQUATION = re.compile(r"[A-Za-z,.> -]{1,200}")
_CHOICES: Mapping[str, tuple[int, ...]] = MappingProxyType({
    "interpolation_mode": (0, 1, 2), "padding_mode": (0, 1, 2), "compute_mode": (0, 1, 2),
})  # fmt: skip
_NEVER_TRAINING = (torch.ops.aten.native_dropout.default, torch.ops.aten.rrelu.default)
_RANDOM = ("train", "dropout_p", "generator", "half_to_float", "sparse_grad", "pin_memory")
# Beside sizes, kernels take these on trust, and look up pixels by them.
_SCALES = ("scales", "scales_d", "scales_h", "scales_w")


@dataclass(frozen=True)
class Ref:
    """The value of that name."""

    name: str


def check_arguments(
    operator: OpOverload,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    is_number: Callable[[str], bool],
) -> None:
    """Make sure that a call fits its operator's schema.

    Args:
        operator: The operator.
        args: Positional arguments; `Ref`s stand for values of the graph.
        kwargs: Arguments by name.
        is_number: Whether the value of a name is a number; if not, it is a tensor.

    Raises:
        ValueError: If it does not; the message names the argument.
    """
    schema = operator._schema
    names = [a.name for a in schema.arguments if not a.kwarg_only]
    given = dict(zip(names, args, strict=False))
    known = {a.name for a in schema.arguments}
    if len(args) > len(names) or set(kwargs) - known or set(kwargs) & set(given):
        raise ValueError(f"gives arguments that {operator} does not take")
    given.update(kwargs)
    for argument in schema.arguments:
        if argument.name in given:
            _check(argument.name, str(argument.real_type), given[argument.name], is_number)
        elif not argument.has_default_value():
            raise ValueError(f"leaves out {argument.name!r} of {operator}")
    if operator in _NEVER_TRAINING and (given.get("training") or given.get("train", 0) is None):
        raise ValueError("would draw random numbers; export after model.eval()")
    statistics = given.get("running_mean"), given.get("running_var")
    if (given.get("training") or given.get("use_input_stats")) and statistics != (None, None):
        raise ValueError("would change its running statistics; export after model.eval()")


def _check(name: str, kind: str, value: Any, is_number: Callable[[str], bool]) -> None:
    if kind.startswith("Optional["):
        if value is None:
            return
        kind = kind.removeprefix("Optional[").removesuffix("]")
    if name in _RANDOM and (isinstance(value, Ref) or value):
        raise ValueError(f"asks for {name}={str(value)[:40]}; export after model.eval()")
    if name in _SCALES:
        raise ValueError(f"gives {name} beside a size; leave it out")
    if not kind.startswith("List["):
        _check_one(name, kind, value, is_number)
        return
    if not isinstance(value, list):  # schemas take one number for a list
        value = [value]
    if len(value) > (_MAX_LIST if name in _LONG_LISTS or "Tensor" in kind else 4 * MAX_AXES):
        raise ValueError(f"gives {len(value):,} values for {name!r}, more than are taken here")
    kind = kind.removeprefix("List[").removesuffix("]")
    for item in value:
        if not (item is None and kind.startswith("Optional[")):
            inner = kind.removeprefix("Optional[").removesuffix("]")
            _check_one(name, inner, item, is_number)


def _check_one(name: str, kind: str, value: Any, is_number: Callable[[str], bool]) -> None:
    if isinstance(value, Ref):  # a number may stand for a tensor, not the other way round
        fits = kind == "Tensor" or (is_number(value.name) and kind in _NUMBERS)
    elif kind == "Tensor":
        fits = isinstance(value, (int, float)) and _is_bounded(name, value)
    elif kind in _NUMBERS:
        fits = _is_number(kind, value) and _is_bounded(name, value)
    elif kind == "str":
        wanted = TEXTS.get(name, ())
        fits = isinstance(value, str) and (
            bool(_EQUATION.fullmatch(value)) if name == "equation" else value in wanted
        )
    else:
        fits = kind in _OBJECTS and isinstance(value, _OBJECTS[kind])
    if not fits:
        raise ValueError(f"gives {str(value)[:40]!r} for {name!r}, where {kind} is expected")


_NUMBERS = ("int", "SymInt", "float", "bool", "number")
_OBJECTS: Mapping[str, type] = MappingProxyType({
    "ScalarType": torch.dtype,
    "MemoryFormat": torch.memory_format,
    "Layout": torch.layout,
    "Device": torch.device,
})


def _is_number(kind: str, value: Any) -> bool:
    if kind == "bool":
        return isinstance(value, bool)
    if kind in ("int", "SymInt"):
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, (int, float))


def _is_bounded(name: str, value: float) -> bool:
    if name == "scale_factors":
        return 1 / _SCALE <= value <= _SCALE
    if name in _CHOICES:
        return value in _CHOICES[name]
    if isinstance(value, float):
        return True
    return -_INT64 <= value < _INT64 if name in _POSITIONS else abs(value) < _LIMIT
