"""Which index sets are nested in others: they may have an order of their own for every position.

Every operator is a sum of products over index sets, or treats all elements alike. So the order
along an index set may depend on the position along another, its parent, if and only if no tensor
runs over the first without the second: neither an argument, nor a result, nor anything that is
computed on the way. With the orders of the parent itself this is a wreath product.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from merging.symmetry.axes import parent_place
from merging.symmetry.rules.call import Axes
from merging.symmetry.rules.expressions import Axis, normal


def find_parents(tensors: Iterable[Axes], order: Sequence[Axis]) -> dict[int, list[Axis]]:
    """Find the parents of every index set that has some.

    Args:
        tensors: Axes of all tensors of the graph, of those on the way included.
        order: The atoms of the state dict, in order; of two index sets that always occur
            together, the first is the parent.

    Returns:
        `id` of an atom -> its parents, outer ones first. What is nested in an atom is nested in
        that atom's parents as well.
    """
    together = _always_together(tensors)
    place = {id(atom): k for k, atom in enumerate(order)}
    parents = {
        atom: {
            other
            for other in others
            if other in place
            and not (place[other] > place[atom] and atom in together.get(other, ()))
        }
        for atom, others in together.items()
        if atom in place and not order[place[atom]].fixed
    }
    parents.update({id(atom): set() for atom in order if atom.fixed})
    _close(parents)
    return {
        atom: [order[place[p]] for p in sorted(found, key=lambda p: (len(parents[p]), place[p]))]
        for atom, found in parents.items()
        if found
    }


def _close(parents: dict[int, set[int]]) -> None:
    """Leave out parents whose own parents are not among an index set's."""
    while True:
        lost = {
            (atom, p)
            for atom, found in parents.items()
            for p in found
            if not parents.get(p, set()) <= found
        }
        if not lost:
            return
        for atom, parent in lost:
            parents[atom].discard(parent)


def _always_together(tensors: Iterable[Axes]) -> dict[int, set[int]]:
    """Return for every atom those that are in every part of a tensor that it is in."""
    together: dict[int, set[int]] = {}
    for cell in _all_cells(tensors):
        for k, (_, atom) in enumerate(cell):
            others = {other for _, other in cell if other != atom}
            if atom in together:
                others &= together[atom]
            together[atom] = {other for other in others if parent_place(cell, k, other) is not None}
    return together


def _all_cells(tensors: Iterable[Axes]) -> Iterator[tuple[tuple[int, int], ...]]:
    """Go through the parts of all tensors in which no axis is a concatenation.

    Yields:
        Axis and `id` of every atom, each combination once.
    """
    seen: set[tuple[int, ...]] = set()
    kept: list[Axis] = []  # as long as they live, their ids are theirs alone
    for axes in tensors:
        axes = [normal(axis) for axis in axes if axis.size > 1]
        key = tuple(id(axis) for axis in axes)
        if key in seen:
            continue
        seen.add(key)
        kept.extend(axes)
        for pieces in itertools.product(*(list(_pieces(axis)) for axis in axes)):
            yield tuple((k, id(atom)) for k, piece in enumerate(pieces) for atom in piece)


def _pieces(axis: Axis) -> Iterator[tuple[Axis, ...]]:
    axis = normal(axis)
    if axis.kind == "atom":
        yield (axis,) if axis.size > 1 else ()
    elif axis.kind == "concat":
        for part in axis.parts:
            yield from _pieces(part)
    else:
        for factors in itertools.product(*(list(_pieces(part)) for part in axis.parts)):
            yield tuple(itertools.chain(*factors))
