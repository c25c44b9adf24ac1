"""Matrices in place of permutations: every unit of the result is a weighted sum of units.

A plan of a group is `[n_new, n_old]`: row `i` says how much of each old unit goes into the new unit
`i`. The plan of a permutation has `plan[i, perm[i]] = 1`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from merging.symmetry.spec import AxisExpression


def plan_of(perm: Tensor) -> Tensor:
    """Return the plan of a permutation, float64.

    Args:
        perm: int64 `[n]`.

    Returns:
        `[n, n]`, a single 1 in every row.

    Example:
        >>> plan_of(torch.tensor([1, 0])).tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    return torch.eye(len(perm), dtype=torch.float64)[perm]


def mix_axis(
    value: Tensor, axis: int, expression: AxisExpression, plans: Mapping[str, Tensor]
) -> Tensor:
    """Mix the units along one axis of a tensor.

    Args:
        value: The tensor.
        axis: The axis.
        expression: What it runs over now, with the old numbers of units.
        plans: Plan by group; a group that is missing keeps its units.

    Returns:
        The tensor with the axis as long as the plans make it; itself if no plan touches it.
    """
    if not any(group in plans for group in expression.groups):
        return value
    first = value.movedim(axis, 0)
    mixed = _mix(first.reshape(first.shape[0], -1), expression, plans)
    return mixed.reshape(-1, *first.shape[1:]).movedim(0, axis)


def mix_tensor(
    value: Tensor, expressions: tuple[AxisExpression, ...], plans: Mapping[str, Tensor]
) -> Tensor:
    """Mix the units along all axes of a tensor."""
    for axis, expression in enumerate(expressions):
        value = mix_axis(value, axis, expression, plans)
    return value


def _mix(rows: Tensor, expression: AxisExpression, plans: Mapping[str, Tensor]) -> Tensor:
    if expression.kind == "atom":
        plan = plans.get(expression.group) if expression.group is not None else None
        return rows if plan is None else plan.to(rows.dtype) @ rows
    if expression.kind == "concat":
        pieces = rows.split([part.size for part in expression.parts])
        return torch.cat([
            _mix(piece, part, plans) for piece, part in zip(pieces, expression.parts, strict=True)
        ])
    sizes = [part.size for part in expression.parts]
    for k, part in enumerate(expression.parts):
        factored = rows.reshape(math.prod(sizes[:k]), sizes[k], -1).transpose(0, 1)
        mixed = _mix(factored.reshape(sizes[k], -1), part, plans)
        sizes[k] = len(mixed)
        back = mixed.reshape(sizes[k], math.prod(sizes[:k]), -1).transpose(0, 1)
        rows = back.reshape(math.prod(sizes), -1)
    return rows
