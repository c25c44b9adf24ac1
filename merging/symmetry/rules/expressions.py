"""Axis expressions: which index set an axis runs over, and what may be permuted on it.

An axis is an atom (one index set), a row-major product of axes, or a concatenation of axes.
`unify` states that two axes run over the same index set. Atoms are joined by union-find; an atom
that meets a product or a concatenation is refined into it, everywhere at once. Where two
expressions cannot be refined into each other, both are fixed: always sound, never wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from merging.symmetry.axes import AxisKind


class Axis:
    """An axis while the equations are being collected. Compare with `is` after `find`.

    A tensor's elements may be equal all along one of its axes (`zeros`): such a uniform axis says
    nothing of the axes that it meets element by element, until an equation makes it one of them.
    """

    __slots__ = ("fixed", "kind", "link", "parts", "size", "uniform")

    def __init__(
        self,
        size: int,
        kind: AxisKind = "atom",
        parts: tuple[Axis, ...] = (),
        fixed: str | None = None,
    ) -> None:
        self.size, self.kind, self.parts, self.fixed = size, kind, parts, fixed
        self.link: Axis | None = None
        self.uniform = False

    def find(self) -> Axis:
        """Return the axis that stands for this one now."""
        axis = self
        while axis.link is not None:
            axis = axis.link
        return axis

    def atoms(self) -> Iterator[Axis]:
        """Go through the atoms of the expression.

        Yields:
            Every atom, from left to right.
        """
        axis = self.find()
        if axis.kind == "atom":
            yield axis
        for part in axis.parts:
            yield from part.atoms()


def fixed_axis(size: int, reason: str) -> Axis:
    """Return an axis that must keep its order."""
    return Axis(size, fixed=reason)


def uniform_axis(size: int) -> Axis:
    """Return an axis along which all elements are equal."""
    axis = Axis(size)
    axis.uniform = True
    return axis


def fix(axis: Axis, reason: str) -> None:
    """State that an axis must keep its order. The first reason given to an atom is kept."""
    for atom in axis.atoms():
        atom.fixed = atom.fixed or reason
        atom.uniform = False


def product(parts: Sequence[Axis]) -> Axis:
    """Return the row-major product.

    Factors of size 1 are dropped, nested products are flattened.

    A concatenation in the leading place is moved outwards, so that equal index sets have equal
    forms: `(a ++ b) x c` is `a x c ++ b x c`.
    """
    factors = [f for f in _flat(parts, "product") if f.size != 1]
    if not factors:
        return Axis(1)
    if len(factors) == 1:
        return factors[0]
    if factors[0].kind == "concat":
        return concat([product([part, *factors[1:]]) for part in factors[0].parts])
    return Axis(math.prod(f.size for f in factors), "product", tuple(factors))


def concat(parts: Sequence[Axis]) -> Axis:
    """Concatenate axes. Empty parts are dropped, nested concatenations are flattened."""
    pieces = [piece for piece in _flat(parts, "concat") if piece.size]
    if len(pieces) == 1:
        return pieces[0]
    return Axis(sum(p.size for p in pieces), "concat", tuple(pieces))


def normal(axis: Axis) -> Axis:
    """Return the axis in its present form: refinements of its parts are taken into account."""
    axis = axis.find()
    if axis.kind == "atom":
        return axis
    rebuilt = product(axis.parts) if axis.kind == "product" else concat(axis.parts)
    same = rebuilt.kind == axis.kind and all(
        new is old for new, old in zip(rebuilt.parts, axis.parts, strict=False)
    )
    if same and len(rebuilt.parts) == len(axis.parts):
        return axis
    axis.link = rebuilt
    return rebuilt


def _flat(parts: Sequence[Axis], kind: AxisKind) -> list[Axis]:
    flat: list[Axis] = []
    for part in (normal(part) for part in parts):
        flat.extend(part.parts if part.kind == kind else (part,))
    return flat


def unify(a: Axis, b: Axis, reason: str) -> None:
    """State that two axes run over the same index set, in the same order.

    Args:
        a: One axis.
        b: The other, of the same size.
        reason: Kept for the atoms that have to be fixed because the two do not fit.

    Raises:
        ValueError: If the sizes differ.
    """
    a, b = normal(a), normal(b)
    if a is b:
        return
    if a.size != b.size:
        raise ValueError(f"axes of {a.size} and {b.size} positions are not the same index set")
    if b.kind == "atom":
        a, b = b, a
    if a.kind == "atom":
        _bind(a, b)
        return
    join = _unify_products if a.kind == b.kind == "product" else _unify_concats
    if not join(a, b, reason):
        fix(a, reason)
        fix(b, reason)


def split(axis: Axis, sizes: Sequence[int], reason: str) -> list[Axis]:
    """Cut an axis into consecutive parts of the given sizes (they add up to its size)."""
    parts: list[Axis] = []
    rest = axis
    for size in sizes[:-1]:
        head, rest = _cut(rest, size, reason)
        parts.append(head)
    return [*parts, rest]


def _bind(atom: Axis, to: Axis) -> None:
    if atom.fixed:
        fix(to, atom.fixed)
    if not atom.uniform:
        for part in to.atoms():
            part.uniform = False
    atom.link = to


def _unify_products(a: Axis, b: Axis, reason: str) -> bool:
    left, right = list(a.parts), list(b.parts)
    while left and right:
        left, right = _flat(left, "product"), _flat(right, "product")
        x, y = left[0], right[0]
        if x.size == y.size:
            unify(left.pop(0), right.pop(0), reason)
        elif not (_factor(y, x.size) if x.size < y.size else _factor(x, y.size)):
            return False
    return True


def _factor(axis: Axis, leading: int) -> bool:
    """Refine an atom into `leading x rest`."""
    if axis.kind != "atom" or axis.size % leading:
        return False
    factors = Axis(leading, fixed=axis.fixed), Axis(axis.size // leading, fixed=axis.fixed)
    _bind(axis, product(factors))
    return True


def _unify_concats(a: Axis, b: Axis, reason: str) -> bool:
    left, right = [a], [b]
    while left and right:
        left, right = _flat(left, "concat"), _flat(right, "concat")
        x, y = left[0], right[0]
        if x.size == y.size:
            unify(left.pop(0), right.pop(0), reason)
        elif x.size < y.size:
            right[:1] = _cut(y, x.size, reason)
        else:
            left[:1] = _cut(x, y.size, reason)
    return True


def _cut(axis: Axis, head: int, reason: str) -> tuple[Axis, Axis]:
    """Cut an axis in two. What cannot be cut without losing its structure is fixed."""
    axis = normal(axis)
    if head in (0, axis.size):
        return (Axis(0), axis) if head == 0 else (axis, Axis(0))
    if axis.kind == "atom":
        pair = Axis(head, fixed=axis.fixed), Axis(axis.size - head, fixed=axis.fixed)
        _bind(axis, concat(pair))
        return pair
    if axis.kind == "concat":
        return _cut_concat(axis, head, reason)
    first, rest = axis.parts[0], axis.parts[1:]
    inner = math.prod(part.size for part in rest)
    if head % inner == 0:
        low, high = _cut(first, head // inner, reason)
        return product([low, *rest]), product([high, *rest])
    fix(axis, reason)
    return fixed_axis(head, reason), fixed_axis(axis.size - head, reason)


def _cut_concat(axis: Axis, head: int, reason: str) -> tuple[Axis, Axis]:
    before: list[Axis] = []
    parts = list(axis.parts)
    while head >= parts[0].size:
        head -= parts[0].size
        before.append(parts.pop(0))
    low, high = _cut(parts[0], head, reason)
    return concat([*before, low]), concat([high, *parts[1:]])
