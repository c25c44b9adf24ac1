"""Axis expressions: what one axis of a parameter runs over.

An axis carries an atom (a group, or positions that keep their order), a row-major product of
expressions, or a concatenation of expressions. A group may be *nested* in other index sets, its
parents: it then has an order of its own for every position of them (units of a head, in heads).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

AxisKind = Literal["atom", "product", "concat"]


@dataclass(frozen=True)
class AxisExpression:
    """What one axis runs over.

    Attributes:
        size: Length of the axis.
        group: The permutation group, for an atom that may be permuted.
        kind: `"atom"`, `"product"` (row-major) or `"concat"`.
        parts: Factors of a product, or pieces of a concatenation.
        within: Names of the group's parents, outer ones first; none for a group by itself.
        fixed: Name of an atom that keeps its order, where groups are nested in it.
    """

    size: int
    group: str | None = None
    kind: AxisKind = "atom"
    parts: tuple[AxisExpression, ...] = ()
    within: tuple[str, ...] = ()
    fixed: str | None = None

    @property
    def name(self) -> str | None:
        """The name of the atom's index set, if it has one: a group's or a fixed parent's."""
        return self.group if self.group is not None else self.fixed

    def atoms(self) -> Iterator[AxisExpression]:
        """Go through the atoms.

        Yields:
            Every atom, from left to right.
        """
        if self.kind == "atom":
            yield self
        for part in self.parts:
            yield from part.atoms()

    def pieces(self) -> Iterator[tuple[AxisExpression, ...]]:
        """Go through the pieces that the axis consists of, concatenations being taken apart.

        Yields:
            For every piece the atoms whose product it is.
        """
        if self.kind == "atom":
            yield (self,)
        elif self.kind == "concat":
            for part in self.parts:
                yield from part.pieces()
        else:
            for factors in itertools.product(*(list(part.pieces()) for part in self.parts)):
                yield tuple(itertools.chain(*factors))

    @property
    def count(self) -> int:
        """The number of pieces."""
        counts = [part.count for part in self.parts]
        return sum(counts) if self.kind == "concat" else math.prod(counts)

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups that occur, each once, in order."""
        return tuple(dict.fromkeys(atom.group for atom in self.atoms() if atom.group is not None))


Cell = tuple[tuple[int, AxisExpression], ...]


def cells(expressions: Sequence[AxisExpression]) -> Iterator[Cell]:
    """Go through the parts of a tensor in which no axis is a concatenation.

    Args:
        expressions: One per axis.

    Yields:
        For every combination of pieces: the atoms, each with the axis that it is on.
    """
    for pieces in itertools.product(*(list(e.pieces()) for e in expressions)):
        yield tuple((axis, atom) for axis, piece in enumerate(pieces) for atom in piece)


def parent_place(cell: Sequence[tuple[int, Hashable]], place: int, parent: Hashable) -> int | None:
    """Return where an index set's parent is: beside it in its product, or else on another axis.

    Args:
        cell: Axis and name of every atom of a part of a tensor.
        place: The atom whose parent is looked for.
        parent: The parent's name.

    Returns:
        The parent's place in the cell; None if it is not there, or not once.
    """
    everywhere = [k for k, (_, name) in enumerate(cell) if name == parent and k != place]
    beside = [k for k in everywhere if cell[k][0] == cell[place][0]]
    found = beside or everywhere
    return found[0] if len(found) == 1 else None


def parent_places(cell: Cell, place: int) -> tuple[int, ...]:
    """Return where the parents of an atom are in a part of a tensor, outer ones first."""
    named = [(axis, atom.name) for axis, atom in cell]
    found = (parent_place(named, place, parent) for parent in cell[place][1].within)
    return tuple(k for k in found if k is not None)


def write_axis(expression: AxisExpression, *, inner: bool = False) -> Any:
    """Write an expression as JSON: see `PermutationSpec.from_json`."""
    if expression.kind != "atom":
        return {expression.kind: [write_axis(part, inner=True) for part in expression.parts]}
    size = {"size": expression.size} if inner else {}
    if expression.within:
        return {"group": expression.group, "within": list(expression.within)} | size
    if expression.fixed is not None:
        return {"fixed": expression.fixed} | size
    return [expression.group, expression.size] if inner else expression.group


def read_axis(entry: Any, size: int | None) -> AxisExpression:
    """Read what `write_axis` writes.

    Args:
        entry: JSON of one axis, or of a part of one.
        size: The axis's length; None for a part, which gives its own.

    Returns:
        The expression.

    Raises:
        ValueError: If the entry is nothing of the kind.
    """
    if isinstance(entry, dict):
        return (
            _read_parts(entry)
            if len(entry) == 1 and "fixed" not in entry
            else _read_atom(entry, size)
        )
    if isinstance(entry, list):
        group, size = entry
        if not (group is None or isinstance(group, str)):
            raise ValueError(f"a group is a name or null, not {group!r}")
        return AxisExpression(_checked(size), group)
    if size is None or not (entry is None or isinstance(entry, str)):
        raise ValueError(f"an axis is a group's name or null, not {entry!r}")
    return AxisExpression(size, entry)


def _read_parts(entry: dict[str, Any]) -> AxisExpression:
    ((kind, given),) = entry.items()
    if kind not in ("product", "concat"):
        raise ValueError(f"unknown kind of axis {kind!r}")
    parts = tuple(read_axis(part, None) for part in given)
    sizes = [part.size for part in parts]
    if kind == "product":
        return AxisExpression(size=math.prod(sizes), group=None, kind="product", parts=parts)
    return AxisExpression(size=sum(sizes), group=None, kind="concat", parts=parts)


def _checked(size: Any) -> int:
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"a part of an axis has at least one unit, not {size!r}")
    return size


def _read_atom(entry: dict[str, Any], size: int | None) -> AxisExpression:
    group, fixed, within = entry.get("group"), entry.get("fixed"), entry.get("within", [])
    size = entry.get("size", size)
    known = set(entry) <= {"group", "within", "fixed", "size"}
    names = [name for name in (group, fixed) if name is not None]
    if not known or len(names) != 1 or not all(isinstance(n, str) for n in (*names, *within)):
        raise ValueError(
            f"a nested group is {{'group': name, 'within': [names]}}, an index set that keeps its "
            f"order {{'fixed': name}}, each with a 'size' inside other axes, not {entry!r}"
        )
    return AxisExpression(_checked(size), group, within=tuple(within), fixed=fixed)
