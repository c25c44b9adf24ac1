"""One operator call as the rules see it: arguments by name, tensors as lists of axes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from merging.symmetry.rules.expressions import Axis, fix, fixed_axis, unify

Axes = list[Axis]


@dataclass(frozen=True)
class TensorAxes:
    """A tensor of the graph: one axis expression per dimension."""

    axes: Axes

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return tuple(axis.size for axis in self.axes)


class Rows(TensorAxes):
    """A tensor whose rows (positions of axis `dim`) run over index sets of their own.

    Who reads single rows (`select`, `slice`, `unbind`) gets theirs; for everybody else `axes`
    states that all rows run over the same.
    """

    rows: list[Axes]
    dim: int

    def __init__(self, rows: list[Axes], dim: int = 0) -> None:
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "dim", dim)

    @property
    def axes(self) -> Axes:
        """One expression per dimension: the rows' own are the same from now on."""
        for row in self.rows[1:]:
            for a, b in zip(self.rows[0], row, strict=True):
                unify(a, b, "rows of one tensor")
        own = fixed_axis(len(self.rows), "rows of one tensor")
        return [*self.rows[0][: self.dim], own, *self.rows[0][self.dim :]]

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        sizes = [axis.size for axis in self.rows[0]]
        return (*sizes[: self.dim], len(self.rows), *sizes[self.dim :])


@dataclass(frozen=True)
class OperatorCall:
    """A call of one operator.

    Attributes:
        operator: The operator's name, such as `"linear"`.
        arguments: Arguments by their name in the operator's schema, defaults included.
        shapes: Shapes of the tensors that the call returns.
        node: The node of the graph.
        inner: What the operator computes on its way, such as the norms it divides by: axes of
            tensors that are in no argument and no result. They say what is nested in what.
    """

    operator: str
    arguments: dict[str, Any]
    shapes: tuple[tuple[int, ...], ...]
    node: fx.Node
    inner: list[Axes] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the (first) tensor that the call returns."""
        return self.shapes[0]

    @property
    def place(self) -> str:
        """Where in the graph this is, for messages."""
        return f"{self.operator} ({self.node.name})"

    def __getitem__(self, name: str) -> Any:
        return self.arguments.get(name)

    def axes(self, name: str) -> Axes:
        """Return the axes of a tensor argument.

        Raises:
            TypeError: If the argument is not a tensor.
        """
        value = self.arguments[name]
        if not isinstance(value, TensorAxes):
            raise TypeError(f"{self.place}: argument {name!r} is not a tensor")
        return value.axes

    def tensors(self) -> Iterator[TensorAxes]:
        """Go through the tensor arguments.

        Yields:
            Every tensor argument, those in lists included.
        """
        for value in self.arguments.values():
            for item in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(item, TensorAxes):
                    yield item

    def same(self, a: Axis, b: Axis) -> None:
        """State that two axes are the same index set."""
        unify(a, b, f"does not fit at {self.place}")

    def fix(self, axis: Axis, why: str) -> None:
        """State that an axis keeps its order, because of this call.

        The call reads along it, so no other axis's order may depend on the position.
        """
        fix(axis, f"{why} at {self.place}")
        for value in self.arguments.values():
            for item in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(item, TensorAxes) and not isinstance(item, Rows):
                    self.along(item.axes, axis)

    def along(self, axes: Axes, *gone: Axis) -> None:
        """State that the call combines the elements along some axes of a tensor."""
        left = [axis for axis in axes if all(axis is not other for other in gone)]
        if len(left) < len(axes):
            self.inner.append(left)

    def fixed(self, size: int, why: str) -> Axis:
        """Return a new axis that keeps its order, because of this call."""
        return fixed_axis(size, f"{why} at {self.place}")

    def broadcast(self, tensors: list[Axes]) -> Axes:
        """Unify axes from the right, as broadcasting does.

        An axis of size 1, or one along which all elements are equal, takes any other.
        """
        result: Axes = []
        for k in range(1, max((len(axes) for axes in tensors), default=0) + 1):
            present = [axes[-k] for axes in tensors if len(axes) >= k]
            wide = [axis for axis in present if axis.size != 1] or present[:1]
            wide = [axis for axis in wide if not axis.find().uniform] or wide[:1]
            for other in wide[1:]:
                self.same(wide[0], other)
            result.append(wide[0])
        return result[::-1]


def dim_list(dims: Any, rank: int) -> list[int]:
    """Return non-negative dimensions from an int, a list, or None for all of them."""
    if dims is None or dims == []:
        return list(range(rank))
    listed = [dims] if isinstance(dims, int) else list(dims)
    return [dim % rank if rank else 0 for dim in listed]
