"""A blueprint, checked: its inputs, the calls of its graph, and what they read.

Only calls of reviewed operators on tensors and bounded numbers are taken over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch._ops import OpOverload

from merging.models.exported.allowed_operators import find_operator
from merging.models.exported.call_arguments import Ref, check_arguments
from merging.models.exported.foreseen import WEIGHT_NORM
from merging.models.exported.running_calls import Call
from merging.models.exported.size_arithmetic import FUNCTIONS, degree
from merging.schema.errors import CheckpointError
from merging.schema.how_to_export import HOW_TO_EXPORT

MAX_CALLS = 5_000  # of large models; Llama with 30 layers has about 2,700
_MAX_OUTPUTS = 4096  # of one call, or of the graph
_MAX_INPUTS = 8
_MAX_NUMBERS = 1 << 28  # in one example input
_OPERATOR = re.compile(r"torch\.ops\.aten\.([A-Za-z_][A-Za-z0-9_]*\.[A-Za-z][A-Za-z0-9_]*)")
_DTYPES: Mapping[int, torch.dtype] = MappingProxyType({
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64,
    6: torch.float16, 7: torch.float32, 8: torch.float64, 12: torch.bool, 13: torch.bfloat16,
})  # fmt: skip
_FORMATS = (
    None, torch.contiguous_format, torch.channels_last, torch.channels_last_3d,
    torch.preserve_format,
)  # fmt: skip
# What a description that is damaged may raise while it is read.
DAMAGES = (
    LookupError, TypeError, AttributeError, ValueError, RecursionError, ArithmeticError,
)  # fmt: skip


def dtype_of(number: object, what: str) -> torch.dtype:
    """Return the dtype behind the number that archives write for it.

    Raises:
        CheckpointError: If it is one that models here do not have.
    """
    found = _DTYPES.get(number) if isinstance(number, int) else None
    if found is None:
        raise CheckpointError(f"{what} has a dtype that is not read here (number {number!r})")
    return found


@dataclass(frozen=True)
class Input:
    """An input of the model: its name, shape with 2 for the batch, and dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


class Plan:
    """A blueprint, checked."""

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        try:
            found = json.loads(text)
            if len(found["nodes"]) > MAX_CALLS:
                raise self._refusal(
                    f"its graph has {len(found['nodes']):,} calls, more than {MAX_CALLS:,}"
                )
            self.degrees: dict[str, int] = {}  # of values that are numbers
            self.tensors: set[str] = set()
            self.weights: dict[str, str] = {}
            self.constants: dict[str, str] = {}
            self.inputs: list[Input] = []
            for spec in found["inputs"]:
                self._input(spec, found["values"])
            if not 0 < len(self.inputs) <= _MAX_INPUTS:
                raise self._refusal(
                    f"its graph has {len(self.inputs)} inputs, expected 1 to {_MAX_INPUTS}"
                )
            self.tensors.update(self.weights, self.constants, (i.name for i in self.inputs))
            self.calls = [self._call(node) for node in found["nodes"]]
            self.outputs = [
                self._argument(spec["user_output"]["arg"])
                for spec in found["outputs"]
                if "user_output" in spec
            ]
            if not 0 < len(self.outputs) <= _MAX_OUTPUTS:
                raise self._refusal(f"its graph has {len(self.outputs):,} outputs")
        except DAMAGES as error:
            raise CheckpointError(
                f"{name}: the description of its graph is damaged "
                f"({type(error).__name__}: {error}); export the model again"
            ) from error

    def _input(self, spec: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        ((kind, content),) = spec.items()
        if kind == "parameter":
            self.weights[content["arg"]["name"]] = content["parameter_name"]
        elif kind == "buffer":
            held = self.weights if content["persistent"] else self.constants
            held[content["arg"]["name"]] = content["buffer_name"]
        elif kind == "tensor_constant":
            self.constants[content["arg"]["name"]] = content["tensor_constant_name"]
        elif kind == "user_input" and "as_tensor" in content["arg"]:
            name = content["arg"]["as_tensor"]["name"]
            self.inputs.append(self._shaped(name, values[name]))
        elif kind != "constant_input" and not (
            kind == "user_input" and "as_none" in content["arg"]
        ):
            raise self._refusal(f"its graph takes a {kind.replace('_', ' ')} that is not a tensor")

    def _shaped(self, name: str, value: Mapping[str, Any]) -> Input:
        shape, numbers = [], 1
        for axis, size in enumerate(value["sizes"]):
            if axis == 0 and "as_int" in size:
                raise self._refusal(
                    f"was exported for batches of exactly {size['as_int']}; leave the batch size "
                    f"open:\n{HOW_TO_EXPORT}"
                )
            known = 2 if axis == 0 else size["as_int"] if "as_int" in size else size["open"]
            if not isinstance(known, int) or not 0 < known <= _MAX_NUMBERS:
                raise self._refusal(f"its input {name!r} has an axis of size {known!r}")
            shape.append(known)
            numbers *= known
        if not shape or numbers > _MAX_NUMBERS:
            raise self._refusal(
                f"its input {name!r} has shape {shape}; expected a batch of examples"
            )
        return Input(name, tuple(shape), dtype_of(value["dtype"], f"{self.name}: input {name!r}"))

    def _call(self, node: Mapping[str, Any]) -> Call:
        target, outputs = node["target"], node["outputs"]
        function = self._function(target)
        args = [self._argument(a["arg"]) for a in node["inputs"] if a["kind"] != 2]
        kwargs = {a["name"]: self._argument(a["arg"]) for a in node["inputs"] if a["kind"] == 2}
        is_list = len(outputs) == 1 and "as_tensors" in outputs[0]
        if is_list:
            names = [v["name"] for v in outputs[0]["as_tensors"]]
        else:
            names = [_output_name(output) for output in outputs]
        call = Call(
            function=function,
            target=target,
            args=tuple(args),
            kwargs=kwargs,
            outputs=tuple(names),
            several=is_list or len(outputs) > 1,
        )
        try:
            self._check(call, is_list=is_list)
        except ValueError as error:
            raise self._refusal(f"call {node['target'][:80]!r} of its graph {error}") from error
        return call

    def _check(self, call: Call, *, is_list: bool) -> None:
        """Make sure that a call fits its operator, and note what it makes.

        Raises:
            ValueError: If it does not.
        """
        if isinstance(call.function, OpOverload):
            check_arguments(call.function, call.args, call.kwargs, self.degrees.__contains__)
            if call.target == WEIGHT_NORM and not all(map(self._is_given, call.args[:2])):
                raise ValueError("takes what is computed, where weights are expected")
            returns = [str(r.type) for r in call.function._schema.returns]
            numbers, lists = returns == ["int"], returns == ["List[Tensor]"]
            if lists != is_list or not (lists or len(call.outputs) == len(returns)):
                raise ValueError(f"has {len(call.outputs)} results, where it returns {returns}")
            found = 1
        else:
            if call.kwargs or len(call.outputs) != 1 or not all(map(self._is_size, call.args)):
                raise ValueError("computes with something else than sizes")
            numbers = True
            degrees = [self.degrees[a.name] if isinstance(a, Ref) else 0 for a in call.args]
            found = degree(call.target, degrees, call.args[-1])
        new = {name for name in call.outputs if name}
        if len(call.outputs) > _MAX_OUTPUTS or new & (self.tensors | self.degrees.keys()):
            raise ValueError("makes a value twice, or too many of them")
        if numbers:
            self.degrees.update(dict.fromkeys(new, found))
        else:
            self.tensors |= new

    def _is_given(self, argument: Any) -> bool:
        name = argument.name if isinstance(argument, Ref) else ""
        return name in self.weights or name in self.constants

    def _is_size(self, argument: Any) -> bool:
        if isinstance(argument, Ref):
            return argument.name in self.degrees
        return isinstance(argument, (int, float))

    def _function(self, target: str) -> Callable[..., Any]:
        if target in FUNCTIONS:
            return FUNCTIONS[target]
        match = _OPERATOR.fullmatch(target[:200])
        found = None if match is None else find_operator(match[1])
        if found is None:
            raise self._refusal(
                f"its graph calls {target[:80]!r}, which is not among the tensor operators "
                "that are run here"
            )
        return found

    def _argument(self, argument: Mapping[str, Any]) -> Any:
        ((kind, value),) = argument.items()
        if kind in ("as_tensor", "as_sym_int", "as_sym_bool", "as_sym_float"):
            return self._reference(value)
        if kind in ("as_tensors", "as_sym_ints", "as_sym_floats", "as_sym_bools"):
            return [self._reference(item) for item in value]
        if kind == "as_optional_tensor":
            return self._argument(value)
        if kind == "as_optional_tensors":
            return [self._argument(item) for item in value]
        if kind in _PLAIN:
            return _PLAIN[kind](value)
        if kind == "as_scalar_type":
            return dtype_of(value, f"{self.name}: its graph")
        raise self._refusal(f"its graph holds an argument of kind {kind[:40]!r}")

    def _reference(self, value: Mapping[str, Any]) -> Any:
        for kind in ("name", "as_name"):
            if kind in value:
                return self._known(value[kind])
        for kind in ("as_int", "as_float", "as_bool"):
            if kind in value:
                return _numbers(value[kind])
        raise ValueError(f"a value without a name: {list(value)[:3]}")

    def _known(self, name: str) -> Ref:
        if name not in self.tensors and name not in self.degrees:
            raise ValueError(f"{name[:40]!r} is read before anything makes it")
        return Ref(name)

    def _refusal(self, why: str) -> CheckpointError:
        return CheckpointError(f"{self.name}: {why}")


def _output_name(output: Mapping[str, Any]) -> str:
    ((kind, value),) = output.items()
    if kind == "as_none":
        return ""
    return str(value["as_name"] if "as_name" in value else value["name"])


def _numbers(value: Any) -> Any:
    """Return numbers and lists of numbers as they are.

    Raises:
        ValueError: If there is anything else.
    """
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if value in ("Infinity", "-Infinity", "NaN"):
        return float(value.replace("Infinity", "inf"))
    if isinstance(value, (int, float, bool)):
        return value
    raise ValueError(f"{str(value)[:40]!r} is not a number")


def _text(value: Any) -> str:
    if isinstance(value, str) and len(value) < 100:
        return value
    raise ValueError("a text that is too long, or none")


_PLAIN: Mapping[str, Callable[[Any], Any]] = MappingProxyType({
    **dict.fromkeys(
        ("as_int", "as_ints", "as_float", "as_floats", "as_bool", "as_bools", "as_int_lists"),
        _numbers,
    ),
    "as_none": lambda _: None,
    "as_string": _text,
    "as_memory_format": _FORMATS.__getitem__,
    "as_layout": lambda _: torch.strided,
    "as_device": lambda _: torch.device("cpu"),
})
