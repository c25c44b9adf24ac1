"""Weights of both models cut into what belongs to the units of one group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from merging.matching.search.nested import Slices, children_of
from merging.matching.search.weight_similarity import WeightSimilarity
from merging.symmetry.axes import Cell, parent_place, parent_places
from merging.symmetry.permutation import permute_tensor
from merging.symmetry.reorder import cut_cells, units_first


def weight_terms(
    weights: WeightSimilarity,
    group: str,
    perms: Mapping[str, Tensor],
    *,
    children: tuple[str, ...] | None = None,
) -> list[Slices]:
    """Return the terms of `<A, pi(B)>` that a group has a part in, relative to `pi(B)`.

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
                front = units_first(a, cell, place, inner), units_first(b, cell, place, inner)
                terms.append(Slices(names, *front))
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
