"""Permutations: making, inverting, composing and applying them.

`perm[i]` is B's unit that plays A's unit `i`; applied to B, unit `i` of the result is unit
`perm[i]` of B. A nested group has a row for every position of its parents in A (`spec`); where
functions take permutations, `[n]` stands for the same order in all rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from merging.files.checkpoints.lazy_params import Params
from merging.schema.errors import SymmetryError
from merging.symmetry.reorder import axis_index, permute_tensor
from merging.symmetry.spec import PermutationSpec

__all__ = [
    "Permutations",
    "axis_index",
    "check_permutations",
    "compose",
    "compose_permutations",
    "cycles",
    "flat_permutation",
    "full_permutations",
    "identity_permutations",
    "invert",
    "invert_permutations",
    "permute",
    "permute_tensor",
    "random_permutations",
]

Permutations = dict[str, Tensor]


def identity_permutations(spec: PermutationSpec) -> Permutations:
    """Return the permutations that leave every unit in its place."""
    return {
        group: torch.arange(shape[-1]).expand(shape).clone() for group, shape in spec.shapes.items()
    }


def random_permutations(spec: PermutationSpec, generator: torch.Generator) -> Permutations:
    """Draw a uniformly random permutation per group, and per position of a nested group's parents.

    Args:
        spec: The permutation spec.
        generator: Source of randomness.

    Returns:
        `{group: int64 [*parents, n]}`.
    """
    return {group: _random(shape, generator) for group, shape in spec.shapes.items()}


def _random(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    *above, n = shape
    rows = [torch.randperm(n, generator=generator) for _ in range(math.prod(above))]
    return torch.stack(rows).reshape(shape)


def full_permutations(spec: PermutationSpec, perms: Mapping[str, Tensor]) -> Permutations:
    """Return the permutations of all groups, in full shape: `[n]` becomes a row for every parent.

    Args:
        spec: The permutation spec.
        perms: Permutations; a group that is missing stays as it is.

    Returns:
        `{group: int64 [*parents, n]}`, for every group of the spec.
    """
    return {
        group: perms.get(group, torch.arange(shape[-1])).expand(shape)
        for group, shape in spec.shapes.items()
    }


def invert_permutations(spec: PermutationSpec, perms: Mapping[str, Tensor]) -> Permutations:
    """Return the permutations that undo `perms`, nested groups included.

    Returns:
        `{group: int64 [*parents, n]}`, for every group of the spec.
    """
    full, undone = full_permutations(spec, perms), Permutations()
    within = spec.within
    for group in sorted(full, key=lambda group: len(within.get(group, ()))):
        parents = within.get(group, ())
        undone[group] = torch.argsort(
            full[group][_rows(full[group].shape, parents, within, undone)]
        )
    return {group: undone[group] for group in full}


def compose_permutations(
    spec: PermutationSpec, first: Mapping[str, Tensor], then: Mapping[str, Tensor]
) -> Permutations:
    """Return the permutations that have the effect of applying `first`, and `then` to the result.

    Returns:
        `{group: int64 [*parents, n]}`, for every group of the spec.
    """
    one, two = full_permutations(spec, first), full_permutations(spec, then)
    within = spec.within
    composed = {}
    for group, perm in one.items():
        rows = _rows(perm.shape, within.get(group, ()), within, two)
        composed[group] = perm[rows].gather(-1, two[group])
    return composed


def _rows(
    shape: tuple[int, ...],
    parents: tuple[str, ...],
    within: Mapping[str, tuple[str, ...]],
    perms: Mapping[str, Tensor],
) -> tuple[Tensor, ...]:
    """Return where rows of a nested group's permutation come from when `perms` move its parents."""
    above = [torch.arange(size) for size in shape[:-1]]
    at = dict(zip(parents, torch.meshgrid(*above, indexing="ij") if above else (), strict=True))
    return tuple(
        perms[parent][(*(at[p] for p in within.get(parent, ())), at[parent])]
        if parent in perms
        else at[parent]
        for parent in parents
    )


def flat_permutation(spec: PermutationSpec, perms: Mapping[str, Tensor], group: str) -> Tensor:
    """Return the permutation of a group's units in all positions of its parents, side by side.

    Args:
        spec: The permutation spec.
        perms: Permutations.
        group: A group.

    Returns:
        int64 `[parents * n]`, row-major; of a group that is not nested, its permutation.
    """
    full, within = full_permutations(spec, perms), spec.within
    shape = tuple(full[group].shape)
    index = full[group]
    rows = _rows(shape, within.get(group, ()), within, full)
    stride = shape[-1]
    for source, size in reversed(list(zip(rows, shape[:-1], strict=True))):
        index = index + stride * source[..., None]
        stride *= size
    return index.flatten()


def invert(perm: Tensor) -> Tensor:
    """Return the permutation that undoes `perm`; nested groups: `invert_permutations`.

    Example:
        >>> invert(torch.tensor([2, 0, 1])).tolist()
        [1, 2, 0]
    """
    return torch.argsort(perm)


def compose(first: Tensor, then: Tensor) -> Tensor:
    """Return the permutation that has the effect of applying `first`, and `then` to the result.

    Example:
        >>> compose(torch.tensor([2, 0, 1]), torch.tensor([1, 0, 2])).tolist()
        [0, 2, 1]
    """
    return first[then]


def cycles(perm: Tensor) -> list[int]:
    """Return the lengths of the cycles, longest first; a fixed point is a cycle of length 1.

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


def permute(
    spec: PermutationSpec, perms: Mapping[str, Tensor], params: Mapping[str, Tensor]
) -> Params:
    """Put the units of a model into another order; the model computes what it did before.

    Args:
        spec: The permutation spec of the architecture.
        perms: `{group: int64 [n]}`, of nested groups `[*parents, n]` (or `[n]`, the same order for
            all); groups that are missing keep their order.
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
    shapes = spec.shapes
    for group, perm in perms.items():
        if group not in shapes:
            raise SymmetryError(f"the spec has no group {group!r}; it has {', '.join(shapes)}")
        shape = shapes[group]
        n = shape[-1]
        if perm.dtype != torch.int64 or tuple(perm.shape) not in (shape, (n,)):
            raise SymmetryError(
                f"the permutation of {group!r} is {perm.dtype} {list(perm.shape)}; "
                f"expected int64 {list(shape)}"
            )
        if not torch.equal(torch.sort(perm).values.cpu(), torch.arange(n).expand(perm.shape)):
            raise SymmetryError(
                f"the permutation of {group!r} names a unit twice: expected 0 to {n - 1}, once each"
            )
