"""Weights of both models cut into what belongs to the units of one group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from merging.axes import Cell, parent_place
from merging.matching.nested import Slices, children_of
from merging.matching.similarity import WeightSimilarity
from merging.permutation import permute_tensor
from merging.reorder import cut_cells


def weight_terms(
    weights: WeightSimilarity,
    group: str,
    perms: Mapping[str, Tensor],
    *,
    children: tuple[str, ...] | None = None,
) -> list[Slices]:
    """The terms of `<A, pi(B)>` that a group has a part in, relative to `pi(B)`.

    Args:
        weights: Weights of both models.
        group: The group.
        perms: All permutations as they are.
        children: Groups nested in it that are to have axes of their own; all direct ones by
            default.

    Returns:
        One term for every place of the group.
    """
    wanted = children_of(weights.spec, group) if children is None else children
    terms = []
    for name in dict.fromkeys(name for name, _ in weights.places[group]):
        axes = weights.axes[name]
        moved = permute_tensor(weights.params_b[name], axes, perms)
        pairs = zip(cut_cells(weights.params_a[name], axes), cut_cells(moved, axes), strict=True)
        for (cell, a), (_, b) in pairs:
            for place, inner in group_places(cell, group, wanted):
                names = tuple(str(cell[k][1].group) for k in inner)
                parents = parent_places(cell, place)
                a_units, b_units = (
                    _units(v, (*parents, place, *inner), len(parents)) for v in (a, b)
                )
                terms.append(Slices(names, a_units, b_units))
    return terms


def group_places(
    cell: Cell, group: str, children: tuple[str, ...]
) -> Iterator[tuple[int, list[int]]]:
    """Go through the places of a group in a part of a tensor.

    Yields:
        The place, and those of the children that are nested in it there.
    """
    named = [(axis, atom.name) for axis, atom in cell]
    for place, (_, atom) in enumerate(cell):
        if atom.group == group:
            above = parent_places(cell, place)
            inner = [
                k
                for k, (_, other) in enumerate(cell)
                if other.group in children
                and parent_place(named, k, group) == place
                and set(parent_places(cell, k)) == {*above, place}
            ]
            yield place, inner


def parent_places(cell: Cell, place: int) -> tuple[int, ...]:
    """Where the parents of an atom are, outer ones first."""
    named = [(axis, atom.name) for axis, atom in cell]
    found = (parent_place(named, place, parent) for parent in cell[place][1].within)
    return tuple(k for k in found if k is not None)


def _units(value: Tensor, front: tuple[int, ...], parents: int) -> Tensor:
    """Bring some axes to the front, and join the first of them into one."""
    moved = value.movedim(front, tuple(range(len(front))))
    sizes = moved.shape
    return moved.reshape(sizes[:parents].numel(), *sizes[parents : len(front)], -1)
