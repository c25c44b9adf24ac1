"""Groups that are nested in others or have others nested in them, solved together.

A step on a group scores every pair of its units by the best orders of what is nested in them
(heads by the best pairing of the units inside), and then pairs the units: it moves a group and
the orders inside it together. A nested group by itself is one assignment per position of its
parents. Everything is relative to B as it stands, so that what is not solved moves along.

Terms are what the objective is a sum of. Their first axis, of length R, is for all positions of
the group's parents, and `m` is the number of units of a child: a group nested in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from merging.matching.search.assignment import solve_assignments
from merging.symmetry.permutation import Permutations, compose_permutations
from merging.symmetry.spec import PermutationSpec

# Rounds in which children that share a tensor are solved in turn.
_ROUNDS = 4
# Gains below this share are rounding.
_LEAST = 1e-12


class Term(Protocol):
    """A part of the objective, for pairs of units of one group."""

    @property
    def children(self) -> tuple[str, ...]:
        """Groups nested in the group whose units' order matters to this term."""

    def value(self, orders: Mapping[str, Tensor]) -> Tensor:
        """Return what every pair is worth, `[R, n, n]`.

        Children are in the given orders `[R, n, n, m]`.
        """

    def units(self, k: int, orders: Mapping[str, Tensor]) -> Tensor:
        """Return similarity `[R, n, n, m, m]` of the k-th child's units.

        The other children are in the given orders.
        """


@dataclass(frozen=True, eq=False)
class Slices:
    """The weights of units of both models, `[R, n, *children, everything else]`."""

    children: tuple[str, ...]
    a: Tensor
    b: Tensor

    def value(self, orders: Mapping[str, Tensor]) -> Tensor:
        """See `Term`."""
        a = self.a.flatten(2)
        if not any(child in orders for child in self.children):
            return a @ self.b.flatten(2).mT
        rows = [
            torch.einsum("rk,rjk->rj", a[:, i], self._ordered(i, None, orders).flatten(2))
            for i in range(a.shape[1])
        ]
        return torch.stack(rows, 1)

    def units(self, k: int, orders: Mapping[str, Tensor]) -> Tensor:
        """See `Term`."""
        a = self.a.movedim(2 + k, 2).flatten(3)
        others = [child for j, child in enumerate(self.children) if j != k]
        if not any(child in orders for child in others):
            b = self.b.movedim(2 + k, 2).flatten(3)
            joint = a.flatten(1, 2) @ b.flatten(1, 2).mT
            return joint.unflatten(2, b.shape[1:3]).unflatten(1, a.shape[1:3]).transpose(2, 3)
        rows = [
            torch.einsum(
                "rak,rjbk->rjab",
                a[:, i],
                self._ordered(i, k, orders).movedim(2 + k, 2).flatten(3),
            )
            for i in range(a.shape[1])
        ]
        return torch.stack(rows, 1)

    def _ordered(self, i: int, but: int | None, orders: Mapping[str, Tensor]) -> Tensor:
        """Return B's units with their children in the orders that suit A's unit `i`."""
        b = self.b
        for k, child in enumerate(self.children):
            if k != but and child in orders:
                index = orders[child][:, i]
                shape = [1] * b.dim()
                shape[:2], shape[2 + k] = index.shape[:2], index.shape[2]
                b = torch.take_along_dim(b, index.reshape(shape), 2 + k)
        return b


@dataclass(frozen=True, eq=False)
class Products:
    """Similarities of joint units, `[R, n, n, m, m, m', m', ...]` with two axes for every child."""

    children: tuple[str, ...]
    joint: Tensor

    def value(self, orders: Mapping[str, Tensor]) -> Tensor:
        """See `Term`."""
        return self._summed(None, orders)

    def units(self, k: int, orders: Mapping[str, Tensor]) -> Tensor:
        """See `Term`."""
        return self._summed(k, orders)

    def _summed(self, but: int | None, orders: Mapping[str, Tensor]) -> Tensor:
        joint = self.joint
        for k in reversed(range(len(self.children))):
            if k != but:
                at = 3 + 2 * k
                if self.children[k] in orders:
                    index = orders[self.children[k]]
                    shape = [*index.shape[:3], *[1] * (joint.dim() - 3)]
                    shape[at] = index.shape[3]
                    joint = torch.take_along_dim(joint, index.reshape(shape), at + 1).sum(at)
                    joint = joint.squeeze(at)
                else:
                    joint = joint.diagonal(dim1=at, dim2=at + 1).sum(-1)
        return joint


@dataclass(frozen=True, eq=False)
class Inside:
    """What pairs of units are worth.

    Attributes:
        start: `[R, n, n]` with what is nested in them as it stands.
        best: `[R, n, n]` with the best orders found of what is nested in them.
        orders: Child -> those orders, int64 `[R, n, n, m]`.
    """

    start: Tensor
    best: Tensor
    orders: dict[str, Tensor]


def look_inside(terms: Sequence[Term]) -> Inside:
    """Find the best orders of the children for every pair of a group's units.

    Exact where no term has two children; else the children are solved in turn.

    Args:
        terms: What the objective is a sum of; one at least.

    Returns:
        What the pairs are worth; the best never less than the start.
    """
    mixed = [term for term in terms if len(term.children) > 1]
    alone: dict[str, Tensor] = {}
    for term in terms:
        if len(term.children) == 1:
            (child,) = term.children
            units = term.units(0, {})
            alone[child] = alone[child] + units if child in alone else units
    base = torch.stack(
        [term.value({}) for term in terms if len(term.children) != 1]
        or [torch.zeros(next(iter(alone.values())).shape[:3], dtype=torch.float64)]
    ).sum(0)
    start = base + sum(units.diagonal(dim1=3, dim2=4).sum(-1) for units in alone.values())
    orders = {child: solve_assignments(units) for child, units in alone.items()}
    if mixed:
        orders = _in_turn(mixed, alone, orders)
    plain = [term.value({}) for term in terms if not term.children]
    worth = [_taken(alone[child], orders[child]) for child in alone]
    best = torch.stack([*plain, *worth, *(term.value(orders) for term in mixed)]).sum(0)
    better = best > start + _LEAST * start.abs()
    kept = {
        child: torch.where(better[..., None], order, torch.arange(order.shape[-1]))
        for child, order in orders.items()
    }
    return Inside(start, torch.where(better, best, start), kept)


def _in_turn(
    mixed: Sequence[Term], alone: Mapping[str, Tensor], orders: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Solve children that share terms one after the other until nothing changes.

    Those of which nothing is known by themselves come first: the others have an order by now.
    """
    children = list(dict.fromkeys(c for term in mixed for c in term.children))
    children.sort(key=lambda child: child in alone)
    for _ in range(_ROUNDS):
        before = dict(orders)
        for child in children:
            parts = [alone[child]] if child in alone else []
            parts += [
                term.units(k, orders)
                for term in mixed
                for k, own in enumerate(term.children)
                if own == child
            ]
            orders[child] = solve_assignments(torch.stack(parts).sum(0))
        if all(c in before and torch.equal(before[c], orders[c]) for c in children):
            break
    return orders


def _taken(units: Tensor, order: Tensor) -> Tensor:
    """Return the summed similarity of units that are paired in some order."""
    return units.gather(-1, order[..., None])[..., 0].sum(-1)


def step(
    spec: PermutationSpec, group: str, perms: Mapping[str, Tensor], terms: Sequence[Term]
) -> tuple[float, Permutations]:
    """Return the best permutation of one group together with what is nested in it, the others held.

    Args:
        spec: The permutation spec.
        group: The group.
        perms: All permutations as they are, in full shape.
        terms: What the objective is a sum of, relative to B in the order of `perms`.

    Returns:
        What it gains, and the new permutations of the group and of all that is nested in it.
    """
    inside = look_inside(terms)
    paired = solve_assignments(inside.best)
    rows = torch.arange(paired.shape[1])
    gain = float(_taken(inside.best, paired).sum() - inside.start[:, rows, rows].sum())
    shapes = spec.shapes
    update = {group: paired.reshape(shapes[group])}
    for child, order in inside.orders.items():
        chosen = torch.take_along_dim(order, paired[..., None, None], 2)
        update[child] = chosen.reshape(shapes[child])
    composed = compose_permutations(spec, perms, update)
    return gain, {name: composed[name] for name in (group, *spec.nested_in(group))}


def children_of(spec: PermutationSpec, group: str) -> tuple[str, ...]:
    """Return the groups that are nested in a group and its parents, and in nothing else."""
    within = spec.within
    wanted = {*within.get(group, ()), group}
    return tuple(child for child in spec.nested_in(group) if set(within[child]) == wanted)
