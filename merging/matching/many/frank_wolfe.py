"""Orders of many models by Frank–Wolfe (C²M³; Crisostomi et al. 2024, arXiv 2405.17897).

Every model `m` has, per group, a matrix `P_m` to the units that all have in common, the universe.
What leads from one model to another goes through the universe, so that going round a cycle of
models leads back to where one was: `P_ab P_bc P_ca = 1`, by construction. The matrices are relaxed
to doubly stochastic ones, whose vertices are the permutations, and J is climbed one group at a
time, in all models at once.

With the other groups held, let `U_m [n, k]` be all numbers of model `m` that the group's units own,
one row per unit. Then `J = const + sum over p < q of <P_p U_p, P_q U_q>`, the gradient is
`G_m = (sum over q of P_q U_q - P_m U_m) U_mᵀ`, and Frank–Wolfe steps towards the permutations `D_m`
that `G_m` likes best. Along `P + t (D - P)` J is a quadratic in `t`,

    b t + a t²,   b = sum <G_m, D_m - P_m> >= 0,   a = sum over p < q of <V_p, V_q>,
                                                   V_m = (D_m - P_m) U_m,

whose maximum in [0, 1] is exact: `t = 1` if `2 a + b >= 0`, else `-b / (2 a)`.

J is linear in any one `P_m`, so that the permutation that its gradient likes best, put in its
place, never lowers J: rounding one matrix after the other loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from merging.matching.many.merge_many import Reached, WideModels, rise
from merging.matching.search.assignment import AssignmentSeries
from merging.matching.search.soft_permutation import mix_tensor, plan_of
from merging.matching.search.weight_similarity import WeightSimilarity, units_first
from merging.symmetry.permutation import Permutations

# A sweep that gains a smaller share of J's possible size is the last.
_LEAST_SHARE = 1e-6


def climb(
    models: WideModels, generator: torch.Generator, *, steps: int, max_rounds: int, max_sweeps: int
) -> Iterator[Reached]:
    """Climb J by Frank–Wolfe, round, and climb on from permutation to permutation.

    Groups that sit twice on one tensor, and nested ones, are not relaxed: J is not quadratic in
    them. They join in after rounding.

    Args:
        models: The models.
        generator: Source of the orders of groups and models.
        steps: Sweeps of Frank–Wolfe over the groups at most.
        max_rounds: Rounds over all models at most, after rounding.
        max_sweeps: Sweeps over the groups at most, per model and round.

    Yields:
        What is reached, after every sweep and every model; J never falls.
    """
    universe = _Universe(models)
    start = models.objective(models.states)
    for k in range(steps):
        gain = universe.sweep(generator)
        now = start + universe.gained
        note = f"Frank–Wolfe, sweep {k + 1}: inner products {now:.5g}"
        yield Reached(
            objective=now, share=(k + 1) / (steps + max_rounds), note=note, orders=universe.rounded
        )
        if gain <= _LEAST_SHARE * universe.size:
            break
    for reached in rise(
        models, universe.rounded(), generator, max_rounds=max_rounds, max_sweeps=max_sweeps
    ):
        share = (steps + reached.share * max_rounds) / (steps + max_rounds)
        yield Reached(
            objective=reached.objective,
            share=share,
            note=reached.note,
            orders=reached.orders,
            converged=reached.converged,
        )


class _Universe:
    """Doubly stochastic matrices from the units of every model to those of the universe."""

    def __init__(self, models: WideModels) -> None:
        self._models = models
        first = models.states[0]
        # Only asked for where groups sit.
        self._places = WeightSimilarity(models.spec, first, first, models.names)
        self._relaxed = [group for group in models.start if self._is_plain(group)]
        self._plans = [
            {group: plan_of(models.start[group]) for group in self._relaxed} for _ in models.states
        ]
        self._targets = [
            {group: models.start[group] for group in self._relaxed} for _ in models.states
        ]
        self._series = [
            {group: AssignmentSeries() for group in self._relaxed} for _ in models.states
        ]
        compared = [{name: state[name] for name in self._places.axes} for state in models.states]
        lengths = [sum(float((v**2).sum()) for v in state.values()) for state in compared]
        self.size = 0.5 * (len(models) - 1) * sum(lengths)  # J if all models were the same
        self.gained = 0.0

    def sweep(self, generator: torch.Generator) -> float:
        """Take one step for every group, in a random order; return how much J rises."""
        gain = 0.0
        for k in torch.randperm(len(self._relaxed), generator=generator).tolist():
            gain += self._step(self._relaxed[k])
        self.gained += gain
        return gain

    def rounded(self) -> list[Permutations]:
        """Return permutations with no smaller J, one model and group after the other."""
        plans = [dict(plan) for plan in self._plans]
        orders = [dict(self._models.start) for _ in plans]
        for group in self._relaxed:
            units = self._units(group, plans)
            for m, own in enumerate(units):
                placed = [plan[group] @ u for plan, u in zip(plans, units, strict=True)]
                gradient = (sum(placed, torch.zeros(())) - placed[m]) @ own.T
                orders[m][group] = self._best(m, group, gradient)
                plans[m][group] = plan_of(orders[m][group])
        return orders

    def _step(self, group: str) -> float:
        units = self._units(group, self._plans)
        plans = [plan[group] for plan in self._plans]
        placed = [plan @ own for plan, own in zip(plans, units, strict=True)]
        total = sum(placed, torch.zeros(()))
        gradients = [(total - at) @ own.T for at, own in zip(placed, units, strict=True)]
        targets = [self._best(m, group, gradient) for m, gradient in enumerate(gradients)]
        ways = [plan_of(t) - plan for t, plan in zip(targets, plans, strict=True)]
        slope = sum(float((g * way).sum()) for g, way in zip(gradients, ways, strict=True))
        moves = [way @ own for way, own in zip(ways, units, strict=True)]
        along = sum(moves, torch.zeros(()))
        bend = 0.5 * float((along**2).sum() - sum((move**2).sum() for move in moves))
        t = 1.0 if 2 * bend + slope >= 0 else -slope / (2 * bend)
        if slope <= 0:
            return 0.0
        for m, way in enumerate(ways):
            self._plans[m][group] = plans[m] + t * way
            self._targets[m][group] = targets[m]
        return slope * t + bend * t * t

    def _best(self, m: int, group: str, gradient: Tensor) -> Tensor:
        return self._series[m][group].solve(gradient, self._targets[m][group])

    def _units(self, group: str, plans: list[dict[str, Tensor]]) -> list[Tensor]:
        """Return the numbers of each model that a group's units own, `[n, k]`.

        Other groups are as they are.
        """
        axes = self._places.axes
        names = dict.fromkeys(name for name, _ in self._places.places[group])
        units = []
        for state, plan in zip(self._models.states, plans, strict=True):
            others = {g: p for g, p in plan.items() if g != group}
            mixed = {name: mix_tensor(state[name], axes[name], others) for name in names}
            units.append(
                torch.cat([
                    rows
                    for name, axis in self._places.places[group]
                    for rows in units_first(mixed[name], axis, axes[name][axis], group)
                ], 1)
            )  # fmt: skip
        return units

    def _is_plain(self, group: str) -> bool:
        near = {group, *self._places.neighbours(group)}
        nested = any(self._models.start[other].dim() > 1 for other in near)
        return bool(self._places.places[group]) and not (nested or self._places.is_quadratic(group))
