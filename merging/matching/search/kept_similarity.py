"""Similarities that are kept from solve to solve, and updated where units moved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from merging.matching.search.assignment import AssignmentSeries
from merging.matching.search.weight_similarity import WeightSimilarity, units_first
from merging.symmetry.permutation import permute_tensor
from merging.symmetry.spec import AxisExpression

# Bytes of the similarities that one descent keeps; groups beyond are computed afresh.
_KEPT_BYTES = 1 << 27

WeightAxis = tuple[str, int]


@dataclass(eq=False)
class _Kept:
    """The similarity of one group, and in which order the other groups were when it was made."""

    matrix: Tensor
    columns: dict[WeightAxis, list[Tensor]]


class RunningSimilarity:
    """The similarities of one descent.

    After the first sweeps few units move at a time, and only what they changed is computed: with
    `m` moved neighbours of `n`, `m / n` of the matrix product.

    Args:
        weights: The models' weights; shared between descents.
    """

    def __init__(self, weights: WeightSimilarity) -> None:
        self.weights = weights
        self._kept: dict[str, _Kept] = {}
        self._series: dict[str, AssignmentSeries] = {}
        self._bytes = 0

    def solve(self, group: str, perms: Mapping[str, Tensor]) -> tuple[Tensor, float]:
        """Return the best permutation of one group with the others held.

        Args:
            group: The group.
            perms: All permutations as they are.

        Returns:
            The permutation, and how much its summed similarity exceeds the present one's.
        """
        matrix, current = self.matrix(group, perms), perms[group]
        best = self._series.setdefault(group, AssignmentSeries()).solve(matrix, current)
        rows = torch.arange(len(current))
        return best, float((matrix[rows, best] - matrix[rows, current]).sum())

    def matrix(self, group: str, perms: Mapping[str, Tensor]) -> Tensor:
        """Return the similarity `[n, n]` of `WeightSimilarity.matrix`.

        It is kept: do not write to it.

        Args:
            group: The group.
            perms: All permutations as they are.

        Returns:
            float64 `[n, n]`.
        """
        kept = self._kept.get(group)
        if kept is not None:
            self._update(kept, group, perms)
            return kept.matrix
        matrix = self.weights.matrix(group, perms)
        if self._bytes + matrix.nbytes <= _KEPT_BYTES and not self.weights.is_quadratic(group):
            self._bytes += matrix.nbytes
            places = self.weights.varying_places(group)
            columns = {place: list(self._columns(place, group, perms)) for place in places}
            self._kept[group] = _Kept(matrix, columns)
        return matrix

    def _update(self, kept: _Kept, group: str, perms: Mapping[str, Tensor]) -> None:
        for place, before in kept.columns.items():
            now = list(self._columns(place, group, perms))
            changed = [(a != b).nonzero().flatten() for a, b in zip(before, now, strict=True)]
            kept.columns[place] = now
            if not any(map(len, changed)):
                continue
            name, axis = place
            expression = self.weights.axes[name][axis]
            firsts = units_first(self.weights.params_a[name], axis, expression, group)
            seconds = units_first(self.weights.params_b[name], axis, expression, group)
            for a, b, old, new, some in zip(firsts, seconds, before, now, changed, strict=True):
                moved = b.index_select(1, new[some]) - b.index_select(1, old[some])
                kept.matrix.addmm_(a.index_select(1, some), moved.T)

    def _columns(
        self, place: WeightAxis, group: str, perms: Mapping[str, Tensor]
    ) -> Iterator[Tensor]:
        """Yield where the columns of `units_first` of B come from, with the other groups permuted.

        Yields:
            int64 `[everything else]` for every place of the group on the axis.
        """
        name, axis = place
        rest = list(self.weights.axes[name])
        expression = rest.pop(axis)
        for own in _without_units(expression, group):
            around = (own, *rest)
            sizes = [part.size for part in around]
            order = torch.arange(torch.Size(sizes).numel()).reshape(sizes)
            yield permute_tensor(order, around, perms).flatten()


def _without_units(expression: AxisExpression, group: str) -> Iterator[AxisExpression]:
    """Yield what else an axis runs over.

    Yields:
        One expression for every place of the group on the axis, one unit of it left.
    """
    if expression.group == group:
        yield AxisExpression(1)
    for k, part in enumerate(expression.parts):
        for own in _without_units(part, group):
            if expression.kind == "concat":
                yield own
                continue
            parts = (own, *expression.parts[:k], *expression.parts[k + 1 :])
            size = expression.size // part.size * own.size
            yield replace(expression, size=size, parts=parts)
