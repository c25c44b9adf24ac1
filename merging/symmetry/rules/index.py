"""Rules of the operators that look elements up by their position."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import fx

from merging.symmetry.rules.call import Axes, OperatorCall


def index(call: OperatorCall) -> Axes:
    """Follow `x[i, :, j]`: axes that are indexed are read by position; the indices lend theirs.

    Raises:
        TypeError: For an index that is a mask: its result has as many rows as the mask has marks.
    """
    given, nodes = call["indices"], call.node.args[1]
    assert isinstance(nodes, (list, tuple))
    if any(isinstance(node, fx.Node) and _is_mask(node) for node in nodes):
        raise TypeError("a mask selects a number of rows that depends on values")
    axes, used = call.axes("self"), [k for k, item in enumerate(given) if item is not None]
    for k in used:
        call.fix(axes[k], "rows are looked up")
    found = call.broadcast([given[k].axes for k in used])
    kept = [axis for k, axis in enumerate(axes) if k not in used]
    adjacent = used == list(range(used[0], used[-1] + 1))
    start = used[0] if adjacent else 0  # as NumPy does: indices that stand apart come first
    return [*kept[:start], *found, *kept[start:]]


def _is_mask(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return not isinstance(value, torch.Tensor) or value.dtype in (torch.bool, torch.uint8)


def gather(call: OperatorCall) -> Axes:
    """Follow `out[i, j] = x[i, index[i, j]]`: one axis is read by position, others go together."""
    axes, wanted = call.axes("self"), call.axes("index")
    dim = call["dim"] % len(axes)
    for k, (axis, own) in enumerate(zip(axes, wanted, strict=True)):
        if k != dim and axis.size == own.size:
            call.same(axis, own)
            continue
        call.fix(axis, "rows are looked up")
        if k != dim:
            call.fix(own, "rows are looked up")
    return wanted


def index_select(call: OperatorCall) -> Axes:
    """Take some positions of one axis."""
    axes = list(call.axes("self"))
    dim = call["dim"] % len(axes)
    call.fix(axes[dim], "rows are looked up")
    axes[dim : dim + 1] = call.axes("index")
    return axes


def differences(call: OperatorCall) -> Axes:
    """Take differences of neighbours along an axis, which is read by position."""
    axes = call.axes("self")
    dim = (-1 if call["dim"] is None else call["dim"]) % len(axes)
    for tensor in call.tensors():
        for k, axis in enumerate(tensor.axes):
            if k == dim:
                call.fix(axis, "read by position")
            else:
                call.same(axes[k], axis)
    result = list(axes)
    result[dim] = call.fixed(call.shape[dim], "read by position")
    return result


def windows(call: OperatorCall) -> Axes:
    """Follow `Tensor.unfold`: overlapping runs of one axis, which is read by position."""
    axes = list(call.axes("self"))
    dim = call["dimension"] % len(axes)
    call.fix(axes[dim], "read by position")
    axes[dim] = call.fixed(call.shape[dim], "read by position")
    return [*axes, call.fixed(call.shape[-1], "read by position")]


RULES: Mapping[str, object] = {
    "index": index,
    "gather": gather,
    "index_select": index_select,
    "diff": differences,
    "unfold": windows,
}
