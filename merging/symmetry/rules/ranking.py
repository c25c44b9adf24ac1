"""Rules of operators that look for the largest and smallest elements.

The values that they return do not depend on the order of what they search; the indices do. So an
axis is fixed only where the indices are read.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping

from merging.symmetry.rules.call import Axes, OperatorCall, TensorAxes
from merging.symmetry.rules.expressions import Axis
from merging.symmetry.rules.pointwise import pointwise


def extreme(call: OperatorCall) -> Axes | list[TensorAxes]:
    """Follow `max`, `min`, `median`: of all, along an axis, or (of two tensors) by element."""
    if "other" in call.arguments:
        return pointwise(call)
    axes = call.axes("self")
    if "dim" not in call.arguments:
        return []
    dim = call["dim"] % len(axes) if axes else 0
    kept = [Axis(1)] if call["keepdim"] else []
    return _with_indices(call, axes, dim, kept)


def ranked(call: OperatorCall) -> list[TensorAxes]:
    """Follow `sort`, `topk`: a new axis in order of size; the old one may have had any order."""
    axes = call.axes("self")
    dim = (-1 if call["dim"] is None else call["dim"]) % len(axes)
    return _with_indices(call, axes, dim, [call.fixed(call.shape[dim], "in order of size")])


def ranks(call: OperatorCall) -> Axes:
    """Follow `argsort`: indices into an axis, which keeps its order."""
    axes = list(call.axes("self"))
    dim = (-1 if call["dim"] is None else call["dim"]) % len(axes)
    call.fix(axes[dim], "its index is read")
    return axes


def both_ends(call: OperatorCall) -> list[TensorAxes]:
    """Follow `aminmax`: smallest and largest."""
    axes = call.axes("self")
    if call["dim"] is None:
        return [TensorAxes([Axis(1) for _ in shape]) for shape in call.shapes]
    dim = call["dim"] % len(axes)
    kept = [Axis(1)] if call["keepdim"] else []
    return [TensorAxes([*axes[:dim], *kept, *axes[dim + 1 :]]) for _ in call.shapes]


def _with_indices(call: OperatorCall, axes: Axes, dim: int, replaced: Axes) -> list[TensorAxes]:
    result = [*axes[:dim], *replaced, *axes[dim + 1 :]]
    if _second_is_read(call):
        call.fix(axes[dim], "its index is read")
    return [TensorAxes(result), TensorAxes(result)]


def _second_is_read(call: OperatorCall) -> bool:
    return any(
        user.target is not operator.getitem or (user.args[1] != 0 and bool(user.users))
        for user in call.node.users
    )


RULES: Mapping[str, object] = {
    **dict.fromkeys(("max", "min", "median", "nanmedian", "mode", "kthvalue"), extreme),
    **dict.fromkeys(("sort", "topk"), ranked),
    "argsort": ranks,
    "aminmax": both_ends,
}
