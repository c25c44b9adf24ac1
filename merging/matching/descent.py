"""Coordinate descent on the inner product of the weights (Ainsworth et al. 2023, Algorithm 1).

One group is solved at a time with all others held, as a linear assignment problem; a group is
skipped while nothing that its similarity depends on has changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from merging.matching.running import RunningSimilarity
from merging.matching.similarity import WeightSimilarity
from merging.params import norm
from merging.permutation import Permutations


@dataclass(frozen=True)
class Descent:
    """Where a descent ended.

    Attributes:
        permutations: One permutation per group.
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
        start: Permutations to start from; left as they are.
        generator: Source of the orders.
        max_sweeps: Sweeps at the most.
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
            gain, perm = _solve(running, group, perms)
            if gain > least:
                perms[group] = perm
                gained += gain
                stale |= similarity.neighbours(group)
        objective.append(objective[-1] + gained)
        reached = Descent(dict(perms), tuple(objective), converged=not stale)
        if on_sweep is not None:
            on_sweep(reached)
        if reached.converged:
            break
    return reached


def _solve(running: RunningSimilarity, group: str, perms: Permutations) -> tuple[float, Tensor]:
    """The best permutation of one group with the others held, and what it gains."""
    best, gain = running.solve(group, perms)
    weights = running.weights
    if gain > 0 and weights.is_quadratic(group):
        # The matrix holds the group's other place where it was, so it only proposes.
        gain = weights.objective({**perms, group: best}) - weights.objective(perms)
    return gain, best
