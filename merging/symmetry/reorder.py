"""One tensor in another order: where each of its elements comes from.

What comes from where is told by positions in the result, which are model A's: so the row of a
nested group's permutation is known before its parents are moved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from merging.schema.errors import SymmetryError
from merging.symmetry.axes import AxisExpression, Cell, parent_places


def axis_index(expression: AxisExpression, perms: Mapping[str, Tensor]) -> Tensor | None:
    """Return the positions that an axis takes its elements from, or None if it keeps its order.

    Args:
        expression: What the axis runs over.
        perms: Permutations by group; a group that is missing stays as it is.

    Returns:
        int64 `[size]`.

    Raises:
        SymmetryError: If a group is nested in one that is on another axis of its tensor.
    """
    if not any(group in perms for group in expression.groups):
        return None
    return _sources(expression, torch.arange(expression.size), {}, perms)


def _sources(
    expression: AxisExpression,
    position: Tensor,
    above: Mapping[str, Tensor],
    perms: Mapping[str, Tensor],
) -> Tensor:
    """Return where the elements at some positions of an axis come from.

    `above` says at which position of every index set on other axes, or beside, they are.

    Raises:
        SymmetryError: If a group's parent is not among them.
    """
    if expression.kind == "product":
        sizes = [part.size for part in expression.parts]
        digits = _digits(position, sizes)
        beside = {**above, **_positions(expression, position)}
        index = torch.zeros_like(position)
        for part, digit in zip(expression.parts, digits, strict=True):
            index = index * part.size + _sources(part, digit, beside, perms)
        return index
    if expression.kind == "concat":
        index, start = position.clone(), 0
        for part in expression.parts:
            here = (position >= start) & (position < start + part.size)
            inside = {name: at.expand_as(here)[here] for name, at in above.items()}
            index[here] = start + _sources(part, position[here] - start, inside, perms)
            start += part.size
        return index
    perm = perms.get(expression.group) if expression.group is not None else None
    if perm is None:
        return position
    perm = perm.to(position.device)
    if perm.dim() == 1:
        return perm[position]
    missing = [parent for parent in expression.within if parent not in above]
    if missing:
        raise SymmetryError(
            f"{expression.group!r} is nested in {', '.join(missing)}, on another axis of its "
            "tensor: permute the whole tensor"
        )
    return perm[(*(above[parent] for parent in expression.within), position)]


def _digits(position: Tensor, sizes: list[int]) -> list[Tensor]:
    """Return the positions along the factors of a row-major product."""
    digits = []
    for size in reversed(sizes):
        digits.append(position % size)
        position = position // size
    return digits[::-1]


def _positions(expression: AxisExpression, position: Tensor) -> dict[str, Tensor]:
    """Return positions along an axis's named atoms; in a concatenation, those in each piece."""
    if expression.kind == "atom":
        return {} if expression.name is None else {expression.name: position}
    found: dict[str, Tensor] = {}
    if expression.kind == "product":
        digits = _digits(position, [part.size for part in expression.parts])
        for part, digit in zip(expression.parts, digits, strict=True):
            found.update(_positions(part, digit))
        return found
    start = 0
    for part in expression.parts:
        inside = (position - start).clamp(0, part.size - 1)
        here = (position >= start) & (position < start + part.size)
        for name, at in _positions(part, inside).items():
            found[name] = torch.where(here, at, found.get(name, torch.zeros_like(at)))
        start += part.size
    return found


def permute_tensor(
    value: Tensor, expressions: tuple[AxisExpression, ...], perms: Mapping[str, Tensor]
) -> Tensor:
    """Permute all axes of one tensor; the tensor itself if nothing moves."""
    crossed = [k for k, e in enumerate(expressions) if _is_crossed(e, perms)]
    for axis, expression in enumerate(expressions):
        if axis not in crossed:
            index = axis_index(expression, perms)
            if index is not None:
                value = value.index_select(axis, index.to(value.device))
    return _permute_crossed(value, expressions, perms, crossed) if crossed else value


def _is_crossed(expression: AxisExpression, perms: Mapping[str, Tensor]) -> bool:
    """Return whether the order along an axis depends on the position along another."""
    for piece in expression.pieces():
        names = {atom.name for atom in piece}
        for atom in piece:
            perm = perms.get(atom.group) if atom.group is not None else None
            if perm is not None and perm.dim() > 1 and not names.issuperset(atom.within):
                return True
    return False


def _permute_crossed(
    value: Tensor,
    expressions: tuple[AxisExpression, ...],
    perms: Mapping[str, Tensor],
    crossed: list[int],
) -> Tensor:
    """Permute the axes whose order depends on other axes, all at once."""
    wanted = {parent for k in crossed for atom in expressions[k].atoms() for parent in atom.within}
    used = [
        k
        for k, e in enumerate(expressions)
        if k in crossed or any(atom.name in wanted for atom in e.atoms())
    ]
    grid = torch.meshgrid(*(torch.arange(expressions[k].size) for k in used), indexing="ij")
    places = [_positions(expressions[k], at) for k, at in zip(used, grid, strict=True)]
    index = []
    for k, at in zip(used, grid, strict=True):
        others = [found for other, found in zip(used, places, strict=True) if other != k]
        above = {name: where for found in others for name, where in found.items()}
        index.append(_sources(expressions[k], at, above, perms) if k in crossed else at)
    front = value.movedim(used, list(range(len(used))))
    moved = front[tuple(i.to(value.device) for i in index)]
    return moved.movedim(list(range(len(used))), used)


def cut_cells(
    value: Tensor, expressions: Sequence[AxisExpression]
) -> Iterator[tuple[Cell, Tensor]]:
    """Cut a tensor into parts in which no axis is a concatenation, with one axis for every atom.

    Args:
        value: The tensor.
        expressions: What its axes run over.

    Yields:
        The atoms, each with the axis that it was on, and the part.
    """
    yield from _cut(value, tuple(enumerate(expressions)))


def _cut(value: Tensor, dims: Cell) -> Iterator[tuple[Cell, Tensor]]:
    for k, (axis, expression) in enumerate(dims):
        sizes = [part.size for part in expression.parts]
        if expression.kind == "product":
            factors = tuple((axis, part) for part in expression.parts)
            if not any(atom.name for atom in expression.parts[0].atoms()):
                sizes[0] = -1  # such as examples, of which there may be more
            yield from _cut(value.unflatten(k, sizes), (*dims[:k], *factors, *dims[k + 1 :]))
            return
        if expression.kind == "concat":
            for piece, part in zip(value.split(sizes, dim=k), expression.parts, strict=True):
                yield from _cut(piece, (*dims[:k], (axis, part), *dims[k + 1 :]))
            return
    yield dims, value


def units_first(value: Tensor, cell: Cell, place: int, inner: Sequence[int] = ()) -> Tensor:
    """Bring the units of one place of a group to the front.

    Args:
        value: A part of a tensor, as `cut_cells` has it.
        cell: Its atoms.
        place: Where the group is.
        inner: Places of what is to have an axis of its own.

    Returns:
        `[positions of the parents, units, *inner, everything else]`.
    """
    parents = parent_places(cell, place)
    front = (*parents, place, *inner)
    moved = value.movedim(front, tuple(range(len(front))))
    rows = moved.shape[: len(parents)].numel()
    return moved.reshape(rows, *moved.shape[len(parents) : len(front)], -1)
