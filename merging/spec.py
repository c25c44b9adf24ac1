"""Permutation specs: which axes of which parameters carry which permutation group.

A permutation `perm` of a group is int64 `[n]`; `perm[i]` is B's unit that plays A's unit `i`. An
axis of a parameter carries an expression: nothing (it keeps its order), a group, a row-major
product of expressions, or a concatenation of expressions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from merging.errors import SymmetryError
from merging.records import FrozenAxis


@dataclass(frozen=True)
class AxisExpression:
    """What one axis runs over.

    Attributes:
        size: Length of the axis.
        group: The permutation group, for an atom that may be permuted.
        kind: `"atom"`, `"product"` (row-major) or `"concat"`.
        parts: Factors of a product, or pieces of a concatenation.
    """

    size: int
    group: str | None = None
    kind: Literal["atom", "product", "concat"] = "atom"
    parts: tuple[AxisExpression, ...] = ()

    def atoms(self) -> Iterator[AxisExpression]:
        """Go through the atoms.

        Yields:
            Every atom, from left to right.
        """
        if self.kind == "atom":
            yield self
        for part in self.parts:
            yield from part.atoms()

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups that occur, each once, in order."""
        return tuple(dict.fromkeys(atom.group for atom in self.atoms() if atom.group is not None))


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
        """Number of units of every group.

        Raises:
            SymmetryError: If a group has two sizes.
        """
        sizes: dict[str, int] = {}
        for name, axis, atom in self._atoms():
            group = atom.group
            if group is not None and sizes.setdefault(group, atom.size) != atom.size:
                raise SymmetryError(
                    f"{name!r} axis {axis} has {atom.size} units, but permutation {group!r} has "
                    f"{sizes[group]} elsewhere in the spec"
                )
        return sizes

    @property
    def log10_orderings(self) -> float:
        """log10 of the number of orderings of all units that leave the function alone."""
        return sum(math.lgamma(n + 1) for n in self.sizes.values()) / math.log(10)

    def places(self) -> dict[str, tuple[tuple[str, int], ...]]:
        """For every group, the (parameter, axis) pairs that it occurs on."""
        places: dict[str, dict[tuple[str, int], None]] = {}
        for name, axis, atom in self._atoms():
            if atom.group is not None:
                places.setdefault(atom.group, {})[name, axis] = None
        return {group: tuple(found) for group, found in places.items()}

    def without(self, groups: frozenset[str], reason: str) -> PermutationSpec:
        """The spec with some groups frozen, and the reason noted."""
        axes = {
            name: tuple(_without(expression, groups) for expression in expressions)
            for name, expressions in self.axes.items()
        }
        frozen = tuple(
            FrozenAxis(name, axis, self.sizes[group], reason)
            for group, found in self.places().items()
            if group in groups
            for name, axis in found
        )
        report = SymmetryReport(
            self.report.frozen + frozen, self.report.unknown_operators, self.report.seconds
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

    def to_json(self) -> str:
        """The spec as JSON, as `from_json` reads it."""
        return json.dumps({name: [_write(e) for e in axes] for name, axes in self.axes.items()})

    @staticmethod
    def from_json(text: str, params: Mapping[str, Tensor]) -> PermutationSpec:
        """Read a spec in the form `{parameter: [group or null per axis]}`.

        An entry may also be `{"product": [...]}` or `{"concat": [...]}` of entries, in which an
        atom is `[group or null, size]`.

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
                    _read(entry, size)
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


def _without(expression: AxisExpression, groups: frozenset[str]) -> AxisExpression:
    parts = tuple(_without(part, groups) for part in expression.parts)
    group = None if expression.group in groups else expression.group
    return AxisExpression(expression.size, group, expression.kind, parts)


def _write(expression: AxisExpression) -> Any:
    if expression.kind == "atom":
        return expression.group
    return {expression.kind: [_write_part(part) for part in expression.parts]}


def _write_part(part: AxisExpression) -> Any:
    return [part.group, part.size] if part.kind == "atom" else _write(part)


def _read(entry: Any, size: int | None) -> AxisExpression:
    if isinstance(entry, dict):
        ((kind, given),) = entry.items()
        parts = tuple(_read(part, None) for part in given)
        if kind not in ("product", "concat"):
            raise ValueError(f"unknown kind of axis {kind!r}")
        sizes = [part.size for part in parts]
        total = math.prod(sizes) if kind == "product" else sum(sizes)
        return AxisExpression(total, None, kind, parts)
    if isinstance(entry, list):
        group, size = entry
        if not (group is None or isinstance(group, str)):
            raise ValueError(f"a group is a name or null, not {group!r}")
        return AxisExpression(int(size), group)
    if size is None or not (entry is None or isinstance(entry, str)):
        raise ValueError(f"an axis is a group's name or null, not {entry!r}")
    return AxisExpression(size, entry)
