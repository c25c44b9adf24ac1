"""Weight matching (Ainsworth et al. 2023, §3.2 and Algorithm 1)."""

from __future__ import annotations

import torch

from merging.errors import StoppedError
from merging.matching.base import MatchProblem, MatchResult, Method, Watcher
from merging.matching.descent import Descent, WeightSimilarity, descend
from merging.methods import WeightOptions, find_card
from merging.permutation import identity_permutations


def match_weights(
    problem: MatchProblem,
    options: WeightOptions,
    generator: torch.Generator,
    watcher: Watcher,
) -> MatchResult:
    """Find the permutation of B whose weights have the largest inner product with A's.

    The problem is NP-hard; coordinate descent ends in a local optimum that depends on the order
    of the groups, so several orders are tried.

    Args:
        problem: The two models; no examples are needed.
        options: Options.
        generator: Source of the orders.
        watcher: Told after every sweep.

    Returns:
        The best run; its objective per sweep, and the final objective of every run.
    """
    start = identity_permutations(problem.spec)
    similarity = WeightSimilarity(problem.spec, problem.params_a, problem.params_b, problem.weights)
    runs: list[Descent] = []
    current = Descent(start, (similarity.objective(start),), converged=False)

    def note(found: Descent) -> None:
        nonlocal current
        current = found
        watcher.on_partial(_result([*runs, found], stopped=True))
        run, sweep = len(runs), len(found.objective) - 1
        watcher.on_progress(
            run + sweep / options.max_sweeps,
            options.restarts,
            f"run {run + 1}, sweep {sweep}: {found.objective[-1]:.4g}",
        )

    try:
        for _ in range(options.restarts):
            runs.append(
                descend(similarity, start, generator, max_sweeps=options.max_sweeps, on_sweep=note)
            )
    except StoppedError:
        return _result([*runs, current], stopped=True)
    return _result(runs, stopped=False)


def _result(runs: list[Descent], *, stopped: bool) -> MatchResult:
    best = max(runs, key=lambda found: found.objective[-1])
    return MatchResult(
        best.permutations,
        best.objective,
        "inner product of the weights, ⟨A, π(B)⟩",
        converged=best.converged,
        stopped=stopped,
        restarts=tuple(found.objective[-1] for found in runs),
    )


METHOD = Method(find_card("weight"), match_weights)
