"""Projections that hold several tensors side by side, such as fused queries, keys and values.

`projected.view(n, tokens, 3, heads, units)` makes an axis of three positions that mean different
things. Where every reader takes single positions of it (`qkv[0]`, `unbind`), heads and units of
each position are index sets of their own: the projection is `queries ++ keys ++ values`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import fx

from merging.models.graph.operators import operator_name
from merging.symmetry.rules.call import Axes, OperatorCall, Rows, TensorAxes
from merging.symmetry.rules.expressions import Axis, concat, product

# Operators that hand elements on as they are, with axes in another order.
HANDED_ON = frozenset({
    "alias", "clone", "contiguous", "detach", "dropout", "movedim", "moveaxis", "permute",
    "squeeze", "swapaxes", "swapdims", "to", "transpose", "unsqueeze",
})  # fmt: skip
# Sizes that stand for the axis that is followed, and for every other one.
_FOLLOWED, _OTHER = 3, 2


def read_by_position(call: OperatorCall, dim: int) -> bool:
    """Return whether every reader of what a call returns takes single positions of one axis."""
    shape = [min(size, _OTHER) for size in call.shape]
    shape[dim] = _FOLLOWED
    return _read_by_position(call.node, tuple(shape))


def _read_by_position(node: fx.Node, shape: tuple[int, ...]) -> bool:
    return bool(node.users) and all(_takes_positions(user, node, shape) for user in node.users)


def _takes_positions(user: fx.Node, node: fx.Node, shape: tuple[int, ...]) -> bool:
    schema = getattr(user.target, "_schema", None)
    if schema is None or not callable(user.target) or user.args[:1] != (node,):
        return False
    name = operator_name(user)
    if name in ("select", "unbind"):
        dim = user.args[1] if len(user.args) > 1 else user.kwargs.get("dim", 0)
        return isinstance(dim, int) and shape[dim] == _FOLLOWED
    if name not in HANDED_ON or len(user.all_input_nodes) > 1:
        return False
    after = user.target(torch.empty(shape, device="meta"), *user.args[1:], **user.kwargs)
    return _read_by_position(user, tuple(after.shape))


def cut_rows(call: OperatorCall, axis: Axis, sizes: list[int], along: int) -> list[Axes]:
    """Split an axis into axes of the given sizes; those after `along` once for each position.

    Returns:
        For every position of axis `along`, the other axes.
    """
    before = [Axis(size) for size in sizes[:along]]
    rows = [[Axis(size) for size in sizes[along + 1 :]] for _ in range(sizes[along])]
    call.same(axis, product([*before, concat([product(row) for row in rows])]))
    return [[*before, *row] for row in rows]


def handed_on(rule: Callable[[OperatorCall], Axes], call: OperatorCall) -> list[TensorAxes]:
    """Apply a rule of `HANDED_ON` to every row of a tensor that has its own."""
    name = "self" if "self" in call.arguments else "input"
    given = call[name]
    assert isinstance(given, Rows)
    rows, at = [], given.dim
    for row in given.rows:
        mark = Axis(len(given.rows))
        axes = [*row[: given.dim], mark, *row[given.dim :]]
        result = rule(replace(call, arguments={**call.arguments, name: TensorAxes(axes)}))
        at = next(k for k, axis in enumerate(result) if axis is mark)
        rows.append([*result[:at], *result[at + 1 :]])
    return [Rows(rows, at)]
