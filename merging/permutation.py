"""Permutations: making, inverting, composing and applying them.

`perm[i]` is B's unit that plays A's unit `i`; applied to B, unit `i` of the result is unit
`perm[i]` of B.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from merging.errors import SymmetryError
from merging.params import Params
from merging.spec import AxisExpression, PermutationSpec

Permutations = dict[str, Tensor]


def identity_permutations(spec: PermutationSpec) -> Permutations:
    """Every unit in its place."""
    return {group: torch.arange(n) for group, n in spec.sizes.items()}


def random_permutations(spec: PermutationSpec, generator: torch.Generator) -> Permutations:
    """One uniformly random permutation per group.

    Args:
        spec: The permutation spec.
        generator: Source of randomness.

    Returns:
        `{group: int64 [n]}`.
    """
    return {group: torch.randperm(n, generator=generator) for group, n in spec.sizes.items()}


def invert(perm: Tensor) -> Tensor:
    """The permutation that undoes `perm`.

    Example:
        >>> invert(torch.tensor([2, 0, 1])).tolist()
        [1, 2, 0]
    """
    return torch.argsort(perm)


def compose(first: Tensor, then: Tensor) -> Tensor:
    """The permutation that has the effect of applying `first`, and `then` to the result.

    Example:
        >>> compose(torch.tensor([2, 0, 1]), torch.tensor([1, 0, 2])).tolist()
        [0, 2, 1]
    """
    return first[then]


def cycles(perm: Tensor) -> list[int]:
    """Lengths of the cycles, longest first; a fixed point is a cycle of length 1.

    Example:
        >>> cycles(torch.tensor([1, 0, 2]))
        [2, 1]
    """
    targets, seen, lengths = perm.tolist(), set(), []
    for start in range(len(targets)):
        length, unit = 0, start
        while unit not in seen:
            seen.add(unit)
            unit = targets[unit]
            length += 1
        if length:
            lengths.append(length)
    return sorted(lengths, reverse=True)


def axis_index(expression: AxisExpression, perms: Mapping[str, Tensor]) -> Tensor | None:
    """Positions that an axis takes its elements from, or None if it keeps its order.

    Args:
        expression: What the axis runs over.
        perms: Permutations by group; a group that is missing stays as it is.

    Returns:
        int64 `[size]`.
    """
    if not any(group in perms for group in expression.groups):
        return None
    return _index(expression, perms)


def _index(expression: AxisExpression, perms: Mapping[str, Tensor]) -> Tensor:
    if expression.kind == "atom":
        perm = perms.get(expression.group) if expression.group is not None else None
        return torch.arange(expression.size) if perm is None else perm
    parts = [_index(part, perms) for part in expression.parts]
    if expression.kind == "product":
        index = parts[0]
        for part in parts[1:]:
            index = (index[:, None] * len(part) + part[None, :]).flatten()
        return index
    starts = [0]
    for piece in expression.parts[:-1]:
        starts.append(starts[-1] + piece.size)
    return torch.cat([start + part for start, part in zip(starts, parts, strict=True)])


def permute_tensor(
    value: Tensor, expressions: tuple[AxisExpression, ...], perms: Mapping[str, Tensor]
) -> Tensor:
    """Permute all axes of one tensor; the tensor itself if nothing moves."""
    for axis, expression in enumerate(expressions):
        index = axis_index(expression, perms)
        if index is not None:
            value = value.index_select(axis, index.to(value.device))
    return value


def permute(
    spec: PermutationSpec, perms: Mapping[str, Tensor], params: Mapping[str, Tensor]
) -> Params:
    """Put the units of a model into another order; the model computes what it did before.

    Args:
        spec: The permutation spec of the architecture.
        perms: `{group: int64 [n]}`; groups that are missing keep their order.
        params: State dict, left as it is.

    Returns:
        A new state dict. Tensors that no group touches are shared with `params`.

    Raises:
        SymmetryError: If the spec does not fit the state dict, or an entry of `perms` is no
            permutation of its group.
    """
    spec.check(params)
    check_permutations(spec, perms)
    return {
        name: permute_tensor(value, spec.axes[name], perms) if name in spec.axes else value
        for name, value in params.items()
    }


def check_permutations(spec: PermutationSpec, perms: Mapping[str, Tensor]) -> None:
    """Check that every entry is a permutation of its group.

    Raises:
        SymmetryError: If a group is unknown, or an entry is no int64 bijection of its size.
    """
    sizes = spec.sizes
    for group, perm in perms.items():
        if group not in sizes:
            raise SymmetryError(f"the spec has no group {group!r}; it has {', '.join(sizes)}")
        n = sizes[group]
        if perm.dtype != torch.int64 or perm.shape != (n,):
            raise SymmetryError(
                f"the permutation of {group!r} is {perm.dtype} {list(perm.shape)}; "
                f"expected int64 [{n}]"
            )
        if not torch.equal(torch.sort(perm).values.cpu(), torch.arange(n)):
            raise SymmetryError(
                f"the permutation of {group!r} names a unit twice: expected 0 to {n - 1}, once each"
            )
