"""Weight matching (Ainsworth et al. 2023, §3.2 and Algorithm 1)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event

import torch

from merging.matching.problem import MatchProblem, MatchResult, Method, Watcher
from merging.matching.search.coordinate_descent import Descent, descend
from merging.matching.search.weight_similarity import WeightSimilarity
from merging.schema.cards.matching import WeightOptions, find_card
from merging.schema.errors import StoppedError
from merging.symmetry.permutation import identity_permutations


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
    seeds = torch.randint(2**62, (options.restarts,), generator=generator).tolist()
    reached = [Descent(start, (similarity.objective(start),), converged=False)] * len(seeds)
    sweeps: SimpleQueue[tuple[int, Descent] | None] = SimpleQueue()
    stop = Event()

    def run(k: int) -> None:
        def note(found: Descent) -> None:
            sweeps.put((k, found))
            if stop.is_set():
                raise StoppedError("stopped as asked")

        own = torch.Generator().manual_seed(seeds[k])
        descend(similarity, start, own, max_sweeps=options.max_sweeps, on_sweep=note)

    # The solver and the matrix products leave the interpreter free, so runs go side by side.
    with ThreadPoolExecutor(min(len(seeds), torch.get_num_threads())) as pool:
        runs = [pool.submit(run, k) for k in range(len(seeds))]
        for done in runs:
            done.add_done_callback(lambda _: sweeps.put(None))
        left = len(runs)
        while left:
            sweep = sweeps.get()
            if sweep is None:
                left -= 1
                continue
            reached[sweep[0]] = sweep[1]
            if not stop.is_set():
                _tell(watcher, reached, options, stop)
    for done in runs:
        error = done.exception()
        if error is not None and not isinstance(error, StoppedError):
            raise error
    return _result(reached, stopped=stop.is_set())


def _tell(watcher: Watcher, reached: list[Descent], options: WeightOptions, stop: Event) -> None:
    """Report how far all runs are; if the watcher stops the work, have the runs stop."""
    watcher.on_partial(_result(reached, stopped=True))
    share = sum(r.converged or (len(r.objective) - 1) / options.max_sweeps for r in reached)
    best = max(r.objective[-1] for r in reached)
    try:
        watcher.on_progress(share, len(reached), f"best of {len(reached)} runs: {best:.5g}")
    except StoppedError:
        stop.set()


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
