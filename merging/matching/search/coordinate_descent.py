"""Coordinate descent on the inner product of the weights (Ainsworth et al. 2023, Algorithm 1).

One group is solved at a time with all others held, as a linear assignment problem, or together with
what is nested in it; a group is skipped while nothing that its similarity depends on has changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from merging.matching.search.kept_similarity import RunningSimilarity
from merging.matching.search.nested import step
from merging.matching.search.unit_slices import weight_terms
from merging.matching.search.weight_similarity import WeightSimilarity
from merging.models.state_dict import norm
from merging.symmetry.permutation import Permutations


@dataclass(frozen=True)
class Descent:
    """Where a descent ended.

    Attributes:
        permutations: One permutation per group, of nested ones for every position of the parents.
        objective: `<A, pi(B)>` at the start and after every sweep.
        converged: Whether the last sweep changed nothing.
    """

    permutations: Permutations
    objective: tuple[float, ...]
    converged: bool


def descend(
    similarity: WeightSimilarity,
    start: Permutations,
    generator: torch.Generator,
    *,
    max_sweeps: int,
    on_sweep: Callable[[Descent], None] | None = None,
) -> Descent:
    """Solve one group at a time, in a fresh random order every sweep, until nothing improves.

    Args:
        similarity: Weights of both models.
        start: Permutations of all groups to start from, in full shape; left as they are.
        generator: Source of the orders.
        max_sweeps: Sweeps at most.
        on_sweep: Called after every sweep with what is reached; may raise to stop.

    Returns:
        The permutations; the objective never falls from one sweep to the next.
    """
    perms = dict(start)
    running = RunningSimilarity(similarity)
    groups = list(perms)
    objective = [similarity.objective(perms)]
    stale = set(groups)
    # What the sum may lose by rounding: smaller gains are not gains.
    least = 1e-12 * norm(similarity.params_a) * norm(similarity.params_b)
    reached = Descent(perms, tuple(objective), converged=False)
    for _ in range(max_sweeps):
        gained = 0.0
        for k in torch.randperm(len(groups), generator=generator).tolist():
            group = groups[k]
            if group not in stale:
                continue
            stale.discard(group)
            gain, update = _solve(running, group, perms)
            if gain > least:
                moved = [g for g, perm in update.items() if not torch.equal(perm, perms[g])]
                perms.update(update)
                gained += gain
                around = {g for name in moved for g in similarity.neighbours(name)}
                stale |= around if similarity.is_quadratic(group) else around - {group}
        objective.append(objective[-1] + gained)
        reached = Descent(dict(perms), tuple(objective), converged=not stale)
        if on_sweep is not None:
            on_sweep(reached)
        if reached.converged:
            break
    return reached


def _solve(
    running: RunningSimilarity, group: str, perms: Permutations
) -> tuple[float, Permutations]:
    """Return the best permutations of one group and what is nested in it, and what they gain."""
    weights = running.weights
    if group in weights.nested:
        terms = weight_terms(weights, group, perms)
        gain, update = step(weights.spec, group, perms, terms) if terms else (0.0, {})
    else:
        best, gain = running.solve(group, perms)
        update = {group: best}
    if gain > 0 and weights.is_quadratic(group):
        # The similarity holds the group's other place where it was, so it only proposes.
        gain = weights.objective({**perms, **update}) - weights.objective(perms)
    return gain, update
