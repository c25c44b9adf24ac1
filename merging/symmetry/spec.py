"""Permutation specs: which axes of which parameters carry which permutation group.

A permutation `perm` of a group is int64 `[n]`; `perm[i]` is B's unit that plays A's unit `i`. An
axis of a parameter carries an expression: nothing (it keeps its order), a group, a row-major
product of expressions, or a concatenation of expressions.

A group that is nested in others has an order of its own for every position of these, its parents:
int64 `[*parents, n]`. Rows go by A's parents: with `p` the parent's permutation, `perm[r, i] = j`
says that unit `j` of B's parent `p[r]` plays unit `i` of A's parent `r`. All orders of the parents
with all orders inside each are a wreath product.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from torch import Tensor

from merging.schema.errors import SymmetryError
from merging.schema.records.symmetry import FrozenAxis
from merging.symmetry.axes import AxisExpression, cells, parent_place, read_axis, write_axis

__all__ = ["AxisExpression", "PermutationSpec", "SymmetryReport"]


# Pieces of a tensor that are looked at; networks have tens.
_MOST_PIECES = 100_000


@dataclass(frozen=True)
class SymmetryReport:
    """What `find_symmetry` saw: what is fixed and why, and operators that it knows no rule for."""

    frozen: tuple[FrozenAxis, ...] = ()
    unknown_operators: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class PermutationSpec:
    """The permutation groups of an architecture.

    Attributes:
        axes: Parameter or buffer name -> one expression per axis.
        report: What is fixed and why, if the spec was derived.
    """

    axes: Mapping[str, tuple[AxisExpression, ...]]
    report: SymmetryReport = field(default_factory=SymmetryReport)

    @property
    def sizes(self) -> dict[str, int]:
        """Number of units of every group; of a nested one, for each position of its parents.

        Raises:
            SymmetryError: If a group has two sizes.
        """
        return {group: shape[-1] for group, shape in self._shapes.items()}

    @property
    def within(self) -> dict[str, tuple[str, ...]]:
        """The parents of every nested group, outer ones first."""
        return dict(self._within)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every group's permutation: sizes of the parents, then of the group.

        Raises:
            SymmetryError: If a group has two sizes.
        """
        return dict(self._shapes)

    @cached_property
    def _within(self) -> dict[str, tuple[str, ...]]:
        return {
            atom.group: atom.within
            for _, _, atom in self._atoms()
            if atom.group is not None and atom.within
        }

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        named: dict[str, int] = {}
        groups: dict[str, None] = {}
        for name, axis, atom in self._atoms():
            if atom.name is not None and named.setdefault(atom.name, atom.size) != atom.size:
                raise SymmetryError(
                    f"{name!r} axis {axis} has {atom.size} units, but permutation {atom.name!r} "
                    f"has {named[atom.name]} elsewhere in the spec"
                )
            if atom.group is not None:
                groups[atom.group] = None
        return {
            group: (*(named.get(p, 0) for p in self._within.get(group, ())), named[group])
            for group in groups
        }

    @property
    def units(self) -> int:
        """Number of units of all groups; those of nested ones for every position of the parents."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def log10_orderings(self) -> float:
        """log10 of the number of orderings of all units that leave the function alone."""
        orders = (math.prod(above) * math.lgamma(n + 1) for *above, n in self.shapes.values())
        return sum(orders) / math.log(10)

    def nested_in(self, name: str) -> tuple[str, ...]:
        """Return the groups that have an order of their own for every position of an index set."""
        return tuple(group for group, parents in self.within.items() if name in parents)

    def places(self) -> dict[str, tuple[tuple[str, int], ...]]:
        """Return for every group the (parameter, axis) pairs that it occurs on."""
        places: dict[str, dict[tuple[str, int], None]] = {}
        for name, axis, atom in self._atoms():
            if atom.group is not None:
                places.setdefault(atom.group, {})[name, axis] = None
        return {group: tuple(found) for group, found in places.items()}

    def without(self, groups: frozenset[str], reason: str) -> PermutationSpec:
        """Return the spec with some groups frozen, and the reason noted."""
        parents = {parent for names in self.within.values() for parent in names}
        return self._changed(
            groups,
            reason,
            lambda atom: AxisExpression(
                atom.size, fixed=atom.group if atom.group in parents else None
            ),
        )

    def sharing(self, groups: frozenset[str], reason: str) -> PermutationSpec:
        """Return the spec with one order, for all positions of their parents, of some groups."""
        return self._changed(groups, reason, lambda atom: replace(atom, within=()))

    def _changed(
        self,
        groups: frozenset[str],
        reason: str,
        change: Callable[[AxisExpression], AxisExpression],
    ) -> PermutationSpec:
        def changed(expression: AxisExpression) -> AxisExpression:
            if expression.group in groups:
                return change(expression)
            return replace(expression, parts=tuple(changed(part) for part in expression.parts))

        axes = {name: tuple(changed(e) for e in given) for name, given in self.axes.items()}
        noted = tuple(
            FrozenAxis(parameter=name, axis=axis, units=self.sizes[group], reason=reason)
            for group, found in self.places().items()
            if group in groups
            for name, axis in found
        )
        report = SymmetryReport(
            self.report.frozen + noted, self.report.unknown_operators, self.report.seconds
        )
        return PermutationSpec(axes, report)

    def check(self, params: Mapping[str, Tensor]) -> None:
        """Check that the spec fits a state dict.

        Raises:
            SymmetryError: If it names a parameter that is missing, or another number of axes or
                units than the parameter has.
        """
        for name, expressions in self.axes.items():
            if name not in params:
                raise SymmetryError(
                    f"the permutation spec names {name!r}, which the parameters do not have"
                )
            shape = tuple(params[name].shape)
            if tuple(expression.size for expression in expressions) != shape:
                wanted = [expression.size for expression in expressions]
                raise SymmetryError(
                    f"{name!r} has shape {list(shape)}, but the permutation spec expects {wanted}"
                )

        self._check_nesting()

    def _check_nesting(self) -> None:
        within = self.within
        for name, expressions in self.axes.items():
            if not any(atom.group in within for e in expressions for atom in e.atoms()):
                continue
            if math.prod(e.count for e in expressions) > _MOST_PIECES:
                raise SymmetryError(f"{name!r} is in too many pieces for nested groups")
            for cell in cells(expressions):
                named = [(axis, atom.name) for axis, atom in cell]
                for place, (axis, atom) in enumerate(cell):
                    parents = within.get(atom.group or "", ())
                    above = {p for parent in parents for p in within.get(parent, ())}
                    missing = [p for p in parents if parent_place(named, place, p) is None]
                    if atom.within != parents or missing or not above <= set(parents):
                        raise SymmetryError(
                            f"{name!r} axis {axis} carries {atom.group!r}, which is nested in "
                            f"{', '.join(parents)} elsewhere in the spec: every tensor must name "
                            "the same parents, and theirs, and have each of them once in the same "
                            "product or on another axis"
                        )

    def to_json(self) -> str:
        """Return the spec as JSON, as `from_json` reads it."""
        return json.dumps({name: [write_axis(e) for e in axes] for name, axes in self.axes.items()})

    @staticmethod
    def from_json(text: str, params: Mapping[str, Tensor]) -> PermutationSpec:
        """Read a spec in the form `{parameter: [group or null per axis]}`.

        An entry may also be `{"product": [...]}` or `{"concat": [...]}` of entries, in which an
        atom is `[group or null, size]`. A nested group is `{"group": name, "within": [parents]}`
        and an index set that keeps its order, but has groups nested in it, `{"fixed": name}`; in a
        product or a concatenation they have a `"size"` besides.

        Args:
            text: The JSON text.
            params: State dict whose shapes the spec is for. Parameters that the text leaves out
                keep all axes in order.

        Returns:
            The spec.

        Raises:
            SymmetryError: If the text is no such JSON, or does not fit the parameters.
        """
        try:
            entries = json.loads(text)
            axes = {
                name: tuple(
                    read_axis(entry, size)
                    for entry, size in zip(given, params[name].shape, strict=True)
                )
                for name, given in entries.items()
            }
        except KeyError as error:
            raise SymmetryError(
                f"the spec names {error}, which the parameters do not have"
            ) from None
        except (ValueError, TypeError, AttributeError) as error:
            raise SymmetryError(
                f"the spec is not of the form {{parameter: [group or null per axis]}}: {error}"
            ) from None
        for name, value in params.items():
            axes.setdefault(name, tuple(AxisExpression(size) for size in value.shape))
        spec = PermutationSpec(axes)
        spec.check(params)
        _ = spec.sizes  # raises where a group has two sizes
        return spec

    def _atoms(self) -> Iterator[tuple[str, int, AxisExpression]]:
        for name, expressions in self.axes.items():
            for axis, expression in enumerate(expressions):
                for atom in expression.atoms():
                    yield name, axis, atom
