"""Straight-through matching (Ainsworth et al. 2023, §3.3 and Algorithm 2)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from merging.errors import StoppedError
from merging.graph import Graph, trace
from merging.landscape.evaluation import Prepare, evaluate_family
from merging.landscape.scores import score
from merging.landscape.statistics import has_batch_norm, reset, with_batch_statistics
from merging.matching.base import MatchProblem, MatchResult, Method, Watcher
from merging.matching.descent import descend
from merging.matching.similarity import WeightSimilarity
from merging.methods import StraightThroughOptions, find_card
from merging.params import Params
from merging.permutation import Permutations, identity_permutations, permute


def match_straight_through(
    problem: MatchProblem,
    options: StraightThroughOptions,
    generator: torch.Generator,
    watcher: Watcher,
) -> MatchResult:
    """Find the permutation of B that makes the midpoint's loss on the examples smallest.

    A free copy of the parameters starts at A and follows the gradient of the midpoint's loss; it
    is projected to a permutation of B by weight matching before every step, and the gradient
    passes through the projection as if it were not there. Every new permutation is judged by the
    midpoint's loss on the whole matching set, and the best is kept; the first is weight
    matching's, so the result is never worse than that on this set.

    Args:
        problem: The two models and the examples.
        options: Options.
        generator: Source of the orders of groups and examples.
        watcher: Told after every step.

    Returns:
        The best permutation; the objective is the best midpoint loss so far, per step.
    """
    batches = problem.examples("straight-through matching")
    midpoint = _Midpoint(problem, batches)
    x, y = (torch.cat(tensors) for tensors in zip(*batches, strict=True))
    free = {n: problem.params_a[n].clone().requires_grad_() for n in problem.weights}
    optimiser = torch.optim.SGD(list(free.values()), options.lr, momentum=0.9)
    perms = _project(problem, free, identity_permutations(problem.spec), generator, options)
    best, least = dict(perms), midpoint.loss(perms)
    objective = [least]
    steps = options.epochs * -(-len(y) // options.batch_size)
    try:
        for epoch in range(options.epochs):
            order = torch.randperm(len(y), generator=generator)
            for chosen in order.split(options.batch_size):
                midpoint.step(free, perms, optimiser, x[chosen], y[chosen])
                before = perms
                perms = _project(problem, free, perms, generator, options)
                if any(not torch.equal(perms[g], before[g]) for g in perms):
                    loss = midpoint.loss(perms)
                    if loss < least:
                        best, least = dict(perms), loss
                objective.append(least)
                done = len(objective) - 1
                watcher.on_partial(_result(best, objective, stopped=True))
                watcher.on_progress(
                    done, steps, f"epoch {epoch + 1}: best midpoint loss {least:.4f}"
                )
    except StoppedError:
        return _result(best, objective, stopped=True)
    return _result(best, objective, stopped=False)


def _result(best: Permutations, objective: list[float], *, stopped: bool) -> MatchResult:
    return MatchResult(
        best,
        tuple(objective),
        "loss of the midpoint on the matching set (nats per example)",
        converged=not stopped,
        stopped=stopped,
    )


class _Midpoint:
    """The model halfway between A and the permuted B, on the matching set."""

    def __init__(self, problem: MatchProblem, batches: list[tuple[Tensor, Tensor]]) -> None:
        self.problem, self.batches = problem, batches
        self.graph: Graph = trace(problem.model, (batches[0][0],))
        # A BatchNorm model's interpolated statistics say nothing about its midpoint.
        self.normed = has_batch_norm(problem.model, batches)
        self.prepare: Prepare | None = None
        if self.normed:
            self.prepare = lambda params, _: reset(problem.model, params, batches)

    def loss(self, perms: Permutations) -> float:
        """Mean loss over the whole matching set."""
        aligned = permute(self.problem.spec, perms, self.problem.params_b)
        corners = [self.problem.params_a, aligned]
        half = torch.full((1, 2), 0.5).numpy()
        found = evaluate_family(
            self.problem.model, corners, half, self.batches, prepare=self.prepare
        )
        return float(found.loss[0])

    def step(
        self,
        free: Mapping[str, Tensor],
        perms: Permutations,
        optimiser: torch.optim.Optimizer,
        x: Tensor,
        y: Tensor,
    ) -> None:
        """One gradient step on the free copy, through the projection (Eq. 3)."""
        aligned = permute(self.problem.spec, perms, self.problem.params_b)
        params: Params = dict(self.problem.params_a)
        for name, value in free.items():
            through = aligned[name] + (value - value.detach())
            params[name] = 0.5 * (self.problem.params_a[name] + through)
        visit = with_batch_statistics(self.graph, params, x) if self.normed else None
        logits = self.graph.run(params, (x,), visit=visit)
        loss = score(logits, y)[0].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def _project(
    problem: MatchProblem,
    free: Mapping[str, Tensor],
    start: Permutations,
    generator: torch.Generator,
    options: StraightThroughOptions,
) -> Permutations:
    """The permutation of B nearest to the free copy (in inner product), by Algorithm 1."""
    params = {name: value.detach() for name, value in free.items()}
    similarity = WeightSimilarity(problem.spec, params, problem.params_b, problem.weights)
    return descend(similarity, start, generator, max_sweeps=options.max_sweeps).permutations


METHOD = Method(find_card("straight_through"), match_straight_through)
