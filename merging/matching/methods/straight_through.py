"""Straight-through matching (Ainsworth et al. 2023, §3.3 and Algorithm 2)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from merging.files.checkpoints.lazy_params import Params
from merging.landscape.evaluate.evaluation import Prepare, evaluate_family
from merging.landscape.evaluate.losses import score, unit_for
from merging.landscape.statistics.repair import has_batch_norm, reset, with_batch_statistics
from merging.matching.problem import MatchProblem, MatchResult, Method, Watcher
from merging.matching.search.coordinate_descent import descend
from merging.matching.search.weight_similarity import WeightSimilarity
from merging.models.graph.export import trace
from merging.models.graph.graph import Graph
from merging.schema.cards.matching import StraightThroughOptions, find_card
from merging.schema.errors import StoppedError
from merging.schema.records.loss_unit import LossUnit
from merging.symmetry.permutation import Permutations, identity_permutations, permute


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
        watcher: Told after every step; its state, of the same problem and options, is gone on from.

    Returns:
        The best permutation; the objective is the best midpoint loss so far, per step.
    """
    batches = problem.examples("straight-through matching")
    midpoint = _Midpoint(problem, batches)
    x, y = (torch.cat(tensors) for tensors in zip(*batches, strict=True))
    unit = unit_for(y)
    walk = _Walk(problem, options, generator)
    if watcher.state is None:
        walk.perms = _project(problem, walk.free, walk.perms, generator, options)
        walk.judge(midpoint)
        walk.objective.append(walk.least)
    else:
        walk.go_on(watcher.state)
    splits = -(-len(y) // options.batch_size)
    try:
        for step in range(len(walk.objective) - 1, options.epochs * splits):
            epoch, split = divmod(step, splits)
            if split == 0:
                walk.order = torch.randperm(len(y), generator=generator)
            chosen = walk.order.split(options.batch_size)[split]
            midpoint.step(walk.free, walk.perms, walk.optimiser, x[chosen], y[chosen])
            before = walk.perms
            walk.perms = _project(problem, walk.free, before, generator, options)
            if any(not torch.equal(walk.perms[g], before[g]) for g in before):
                walk.judge(midpoint)
            walk.objective.append(walk.least)
            watcher.on_state(walk.state)
            watcher.on_partial(_result(walk, unit, stopped=True))
            watcher.on_progress(
                step + 1,
                options.epochs * splits,
                f"epoch {epoch + 1}: best midpoint loss {walk.least:.4f}",
            )
    except StoppedError:
        return _result(walk, unit, stopped=True)
    return _result(walk, unit, stopped=False)


def _result(walk: _Walk, unit: LossUnit, *, stopped: bool) -> MatchResult:
    return MatchResult(
        walk.best,
        tuple(walk.objective),
        f"loss of the midpoint on the matching set ({unit} per example)",
        converged=not stopped,
        stopped=stopped,
    )


class _Walk:
    """All that changes from step to step.

    Attributes:
        free: The free copy of the parameters.
        optimiser: What moves it.
        perms: The permutation of B nearest to it.
        best: The permutation with the smallest midpoint loss so far,
        least: and that loss.
        objective: That loss at the start and after every step.
        order: Order of the examples in this epoch, int64 `[n]`.
    """

    def __init__(
        self, problem: MatchProblem, options: StraightThroughOptions, generator: torch.Generator
    ) -> None:
        self.free = {n: problem.params_a[n].clone().requires_grad_() for n in problem.weights}
        self.optimiser = torch.optim.SGD(list(self.free.values()), options.lr, momentum=0.9)
        self.perms = identity_permutations(problem.spec)
        self.best = dict(self.perms)
        self.least = float("inf")
        self.objective: list[float] = []
        self.order = torch.empty(0, dtype=torch.int64)
        self._generator = generator

    def judge(self, midpoint: _Midpoint) -> None:
        """Keep the present permutation if no other's midpoint was as good."""
        loss = midpoint.loss(self.perms)
        if loss < self.least or not self.objective:
            self.best, self.least = dict(self.perms), loss

    def state(self) -> dict[str, Tensor]:
        """Return what the run could go on from."""
        momenta = [
            self.optimiser.state[value].get("momentum_buffer") for value in self.free.values()
        ]
        return {
            "generator": self._generator.get_state(),
            "objective": torch.tensor(self.objective, dtype=torch.float64),
            "order": self.order,
            **{f"free{k}": value.detach() for k, value in enumerate(self.free.values())},
            **{f"momentum{k}": value for k, value in enumerate(momenta) if value is not None},
            **{f"permutation{k}": perm for k, perm in enumerate(self.perms.values())},
            **{f"best{k}": perm for k, perm in enumerate(self.best.values())},
        }

    def go_on(self, state: Mapping[str, Tensor]) -> None:
        """Take up the state of a run before."""
        self._generator.set_state(state["generator"])
        self.objective = state["objective"].tolist()
        self.least = self.objective[-1]
        self.order = state["order"]
        for k, value in enumerate(self.free.values()):
            value.detach().copy_(state[f"free{k}"])
            if f"momentum{k}" in state:  # not of a weight that has no gradient
                self.optimiser.state[value]["momentum_buffer"] = state[f"momentum{k}"].clone()
        self.perms = {group: state[f"permutation{k}"] for k, group in enumerate(self.perms)}
        self.best = {group: state[f"best{k}"] for k, group in enumerate(self.best)}


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
        """Return the mean loss over the whole matching set."""
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
        """Take one gradient step on the free copy, through the projection (Eq. 3)."""
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
    """Return the permutation of B nearest to the free copy (in inner product), by Algorithm 1."""
    params = {name: value.detach() for name, value in free.items()}
    similarity = WeightSimilarity(problem.spec, params, problem.params_b, problem.weights)
    return descend(similarity, start, generator, max_sweeps=options.max_sweeps).permutations


METHOD = Method(find_card("straight_through"), match_straight_through)
