"""How alike the units of two models are by their weights, one permutation group at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from merging.files.checkpoints.lazy_params import LazyParams
from merging.models.state_dict import dot, floating
from merging.symmetry.permutation import permute_tensor
from merging.symmetry.spec import AxisExpression, PermutationSpec

# Bytes that one model may take in float64; of larger ones single tensors are converted when they
# are compared, so that memory holds little beside the files.
KEPT_BYTES = 1 << 30


class WeightSimilarity:
    """Similarity of A's and B's units by their weights, one group at a time, in float64.

    Args:
        spec: The permutation spec.
        params_a: Parameters of model A; only those in `names` are compared.
        params_b: Parameters of model B.
        names: Parameters to compare.
    """

    def __init__(
        self,
        spec: PermutationSpec,
        params_a: Mapping[str, Tensor],
        params_b: Mapping[str, Tensor],
        names: Sequence[str],
    ) -> None:
        self.axes = {
            name: spec.axes[name]
            for name in names
            if name in spec.axes and any(e.groups for e in spec.axes[name])
        }
        self.params_a = _in_float64(params_a, list(self.axes))
        self.params_b = _in_float64(params_b, list(self.axes))
        self.spec = spec
        self.sizes = spec.sizes
        within = spec.within
        # Groups that are nested in others, or have others nested in them.
        self.nested = {g for g in self.sizes if g in within or spec.nested_in(g)}
        self.places = {
            group: [place for place in places if place[0] in self.axes]
            for group, places in spec.places().items()
        }
        self._constant: dict[str, Tensor] = {}

    def neighbours(self, group: str) -> set[str]:
        """Return the groups that share a parameter with this one, whose similarity they affect."""
        found = {g for name, _ in self.places[group] for e in self.axes[name] for g in e.groups}
        return found if self.is_quadratic(group) else found - {group}

    def is_quadratic(self, group: str) -> bool:
        """Return whether the group sits twice on one parameter: then no sum of pairs scores it."""
        return any(
            sum(atom.group == group for e in self.axes[name] for atom in e.atoms()) > 1
            and not _only_concatenated(self.axes[name], group)
            for name, _ in self.places[group]
        )

    def matrix(self, group: str, perms: Mapping[str, Tensor]) -> Tensor:
        """Return similarity `[n, n]` of A's units with B's, all other groups at their permutations.

        For groups that are not nested and have none nested in them: see `nested` for others.
        """
        total = self._constant_part(group).clone()
        for name, axis in self.varying_places(group):
            total += self._place(name, axis, group, perms)
        return total

    def varying_places(self, group: str) -> list[tuple[str, int]]:
        """Return the (parameter, axis) pairs of a group at which other groups matter too."""
        return [place for place in self.places[group] if self._depends_on_others(place[0], group)]

    def objective(self, perms: Mapping[str, Tensor]) -> float:
        """Return `<A, pi(B)>` over the parameters that any group touches."""
        return sum(
            dot(
                {name: self.params_a[name]},
                {name: permute_tensor(self.params_b[name], expressions, perms)},
            )
            for name, expressions in self.axes.items()
        )

    def _constant_part(self, group: str) -> Tensor:
        """Sum over the parameters that no other group touches; computed once."""
        if group not in self._constant:
            n = self.sizes[group]
            total = torch.zeros(n, n, dtype=torch.float64)
            for name, axis in self.places[group]:
                if not self._depends_on_others(name, group):
                    total += self._place(name, axis, group, {})
            self._constant[group] = total  # whole at once: runs in other threads read it
        return self._constant[group]

    def _depends_on_others(self, name: str, group: str) -> bool:
        atoms = [atom.group for e in self.axes[name] for atom in e.atoms() if atom.group]
        return any(other != group for other in atoms) or self.is_quadratic(group)

    def _place(self, name: str, axis: int, group: str, perms: Mapping[str, Tensor]) -> Tensor:
        expressions = self.axes[name]
        around = tuple(_in_order(e, group) if k == axis else e for k, e in enumerate(expressions))
        value = permute_tensor(self.params_b[name], around, perms)
        pairs = zip(
            units_first(self.params_a[name], axis, expressions[axis], group),
            units_first(value, axis, expressions[axis], group),
            strict=True,
        )
        n = self.sizes[group]
        return sum((a @ b.T for a, b in pairs), torch.zeros(n, n, dtype=torch.float64))


def _in_float64(params: Mapping[str, Tensor], names: Sequence[str]) -> Mapping[str, Tensor]:
    """Return the parameters in float64: kept where there is room, else made one at a time."""
    found = LazyParams(names, lambda name: params[name].to("cpu", torch.float64))
    return dict(found) if _wide_bytes(params[name] for name in names) <= KEPT_BYTES else found


def compared_bytes(params: Mapping[str, Tensor]) -> int:
    """Return the bytes that one model takes, beside its own, while it is compared with another."""
    values = [params[name] for name in floating(params)]
    whole = _wide_bytes(values)
    return whole if whole <= KEPT_BYTES else max(_wide_bytes([value]) for value in values)


def _wide_bytes(values: Iterable[Tensor]) -> int:
    return sum(8 * value.numel() for value in values)


def _in_order(expression: AxisExpression, group: str) -> AxisExpression:
    """Return the expression with a group's units left as they are."""
    if expression.group == group:
        return AxisExpression(expression.size)
    return replace(expression, parts=tuple(_in_order(part, group) for part in expression.parts))


def units_first(
    value: Tensor, axis: int, expression: AxisExpression, group: str
) -> Iterator[Tensor]:
    """Bring the units of a group to the front.

    Args:
        value: A parameter.
        axis: One of its axes.
        expression: What that axis runs over.
        group: The group.

    Yields:
        For every place of the group on the axis: the tensor as `[n, everything else]`.
    """
    yield from _units(
        value.movedim(axis, 0).flatten(1) if value.dim() > 1 else value[:, None], expression, group
    )


def _units(matrix: Tensor, expression: AxisExpression, group: str) -> Iterator[Tensor]:
    if expression.group == group:
        yield matrix
    if expression.kind == "product":
        factored = matrix.reshape(*(part.size for part in expression.parts), -1)
        for k, part in enumerate(expression.parts):
            yield from _units(factored.movedim(k, 0).flatten(1), part, group)
    if expression.kind == "concat":
        for piece, part in zip(
            matrix.split([part.size for part in expression.parts]), expression.parts, strict=True
        ):
            yield from _units(piece, part, group)


def _only_concatenated(expressions: tuple[AxisExpression, ...], group: str) -> bool:
    """Return whether all places of a group on a parameter are pieces of one axis."""
    on = [e for e in expressions if group in e.groups]
    return (
        len(on) == 1
        and on[0].kind == "concat"
        and all(sum(atom.group == group for atom in part.atoms()) <= 1 for part in on[0].parts)
    )
