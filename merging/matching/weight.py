"""Weight matching (Ainsworth et al. 2023, §3.2 and Algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from merging.errors import StoppedError
from merging.matching.base import MatchProblem, MatchResult, Method, OnProgress
from merging.matching.descent import Descent, WeightSimilarity, descend
from merging.permutation import Permutations, identity_permutations


@dataclass(frozen=True)
class WeightOptions:
    """Options of weight matching.

    Attributes:
        max_sweeps: Sweeps over all groups at the most.
        restarts: Runs with other orders of the groups; the best is kept.
    """

    max_sweeps: int = field(
        default=100, metadata={"label": "Most sweeps over the layers", "min": 1, "max": 1000}
    )
    restarts: int = field(
        default=3, metadata={"label": "Runs, of which the best is kept", "min": 1, "max": 50}
    )


def match_weights(
    problem: MatchProblem,
    options: WeightOptions,
    generator: torch.Generator,
    on_progress: OnProgress,
) -> MatchResult:
    """Find the permutation of B whose weights have the largest inner product with A's.

    The problem is NP-hard; coordinate descent ends in a local optimum that depends on the order
    of the groups, so several orders are tried.

    Args:
        problem: The two models; no examples are needed.
        options: Options.
        generator: Source of the orders.
        on_progress: Called after every sweep; may raise `StoppedError`.

    Returns:
        The best run; its objective per sweep, and the final objective of every run.
    """
    start = identity_permutations(problem.spec)
    similarity = WeightSimilarity(problem.spec, problem.params_a, problem.params_b, problem.weights)
    runs: list[Descent] = []
    last = Descent(start, (similarity.objective(start),), converged=False)
    stopped = False
    try:
        for run in range(options.restarts):
            objective = [similarity.objective(start)]

            def note(
                sweep: int, value: float, perms: Permutations, run: int = run,
                objective: list[float] = objective,
            ) -> None:
                nonlocal last
                objective.append(value)
                last = Descent(dict(perms), tuple(objective), converged=False)
                done = run + sweep / options.max_sweeps
                on_progress(done, options.restarts, f"run {run + 1}, sweep {sweep}: {value:.4g}")

            runs.append(
                descend(similarity, start, generator, max_sweeps=options.max_sweeps, on_sweep=note)
            )
    except StoppedError:
        stopped = True
        runs.append(last)
    best = max(runs, key=lambda found: found.objective[-1])
    return MatchResult(
        best.permutations,
        best.objective,
        "inner product of the weights, ⟨A, π(B)⟩",
        converged=best.converged,
        stopped=stopped,
        restarts=tuple(found.objective[-1] for found in runs),
    )


METHOD = Method(
    name="weight",
    title="Weight matching",
    reference="Ainsworth et al. 2023, §3.2 (arXiv:2209.04836)",
    options=WeightOptions,
    run=match_weights,
)
