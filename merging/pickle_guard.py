"""What the pickle in a PyTorch file may do, found from its opcodes before any of them runs.

Only the few globals that a state dict needs pass, and calls of them only with the arguments that
`torch.save` writes. PyTorch keeps a list of its own behind `weights_only=True`; this one comes
before it, stops what would take all memory or stack, and says how to save a tensor instead.
"""

import pickletools
from collections.abc import Sequence
from typing import NamedTuple

import torch

from merging.checkpoint_guards import HOW_TO_SAVE, refuse, short
from merging.errors import CheckpointError

_STORAGES = "Double Float Half BFloat16 Long Int Short Char Byte Bool ComplexDouble ComplexFloat"
_GLOBALS = {f"torch.{kind}Storage" for kind in _STORAGES.split()}
_GLOBALS |= {str(value) for value in vars(torch).values() if isinstance(value, torch.dtype)}
_REBUILDS = {
    "torch._utils._rebuild_sparse_tensor": "is sparse; save its to_dense()",
    "torch._utils._rebuild_qtensor": "is quantised; save its dequantize()",
    "torch._utils._rebuild_nested_tensor": "is nested; save plain tensors",
    "torch._utils._rebuild_tensor_v3": "has a dtype that cannot be merged; save it as float32",
}
_ARGUMENTS = {
    "torch._utils._rebuild_tensor_v2": ("tuple",),
    "torch._utils._rebuild_parameter": ("tuple",),
    "collections.OrderedDict": ("",),
    "collections.Counter": ("", "(dict,)"),
    "torch.Size": ("",),
    "torch.device": ("",),
}
_GLOBALS |= set(_ARGUMENTS)
_OBJECTS = {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}
_MAX_NESTING = 100


def check_pickle(pickled: bytes, name: str) -> None:
    """Make sure that a pickle builds tensors and plain values only, and neither deep nor huge ones.

    Args:
        pickled: The `data.pkl` of a PyTorch file; it is followed, never run.
        name: What to call the file in the message.

    Raises:
        CheckpointError: If it wants anything else, or is damaged.
    """
    near, stack, memo = "", list[_Value](), dict[object, _Value]()
    try:
        for op, argument, _ in pickletools.genops(pickled):
            if op.name == "GLOBAL":
                _check_global(str(argument).replace(" ", ".", 1), near, name)
            if op.name in _OBJECTS:
                raise CheckpointError(
                    f"{name}: holds Python objects other than tensors ({op.name}), or was saved "
                    f"with another pickle protocol than 2; {HOW_TO_SAVE}"
                )
            near = str(argument) if op.name == "BINUNICODE" else near
            _replay(op, argument, stack, memo)
    except (ValueError, IndexError, KeyError) as error:
        raise CheckpointError(
            f"{name}: its data.pkl is damaged, or not as torch.save writes it ({error}); "
            f"{HOW_TO_SAVE}"
        ) from error


class _Value(NamedTuple):
    depth: int  # how deep tuples nest in it
    kind: str  # "" for numbers, text and tuples of such; "dict"; a global's name; …


_MARK = _Value(0, "mark")


def _replay(
    op: pickletools.OpcodeInfo,
    argument: object,
    stack: list[_Value],
    memo: dict[object, _Value],
) -> None:
    # Follows what each opcode takes and makes, because two things end the process before any
    # tensor can be looked at: the hash of a tuple nested a million deep overflows the C stack, and
    # a call that unpacks a view of a billion entries on four bytes makes a billion tensors.
    taken = _take(op, stack)
    depth = max((value.depth for value in taken), default=0) + op.name.startswith("TUPLE")
    if depth > _MAX_NESTING:
        raise ValueError("nested too deep")
    if op.name == "REDUCE" and taken[0].kind not in _ARGUMENTS.get(taken[1].kind, ()):
        raise ValueError("a call with unusual arguments")
    if op.name == "BUILD" and taken[0].kind != "dict":
        raise ValueError("an object with an unusual state")
    if op.name in {"BINPUT", "LONG_BINPUT"}:
        memo[argument] = stack[-1]
    made = _Value(depth, _kind(op, argument, taken))
    if op.name in {"BINGET", "LONG_BINGET"}:
        made = memo[argument]
    for item in op.stack_after:
        stack.append(_MARK if item is pickletools.markobject else made)


def _take(op: pickletools.OpcodeInfo, stack: list[_Value]) -> list[_Value]:
    # The values that an opcode takes off the stack, the topmost first.
    taken, below_mark = [], len(op.stack_before)
    if pickletools.markobject in op.stack_before:
        below_mark = op.stack_before.index(pickletools.markobject)
        while (value := stack.pop()) is not _MARK:
            taken.append(value)
    return taken + [stack.pop() for _ in range(below_mark)]


def _kind(op: pickletools.OpcodeInfo, argument: object, taken: Sequence[_Value]) -> str:
    kinds = [value.kind for value in taken]
    if op.name == "GLOBAL":
        return str(argument).replace(" ", ".", 1)
    if op.name.startswith("TUPLE"):
        return "(dict,)" if kinds == ["dict"] else "tuple" if any(kinds) else ""
    if op.name in {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD"}:
        return kinds[-1]
    if op.name == "EMPTY_DICT":
        return "dict"
    return "other" if op.stack_before or op.name in {"EMPTY_LIST", "EMPTY_SET"} else ""


def _check_global(wanted: str, near: str, name: str) -> None:
    if wanted in _REBUILDS:
        refuse(name, near, _REBUILDS[wanted])
    if wanted not in _GLOBALS:
        raise CheckpointError(
            f"{name}: holds {short(wanted)}, which is not a tensor and could run code, so it is "
            f"not read. Open it where you trust it and {HOW_TO_SAVE}"
        )
