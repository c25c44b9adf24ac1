"""Activation matching (Ainsworth et al. 2023, §3.1, Eq. 1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from merging.errors import StoppedError
from merging.matching.activations import Moments, activation_sites, stream_moments
from merging.matching.assignment import solve_assignment
from merging.matching.base import MatchProblem, MatchResult, Method, Watcher
from merging.methods import ActivationOptions, find_card
from merging.permutation import Permutations, identity_permutations


def match_activations(
    problem: MatchProblem,
    options: ActivationOptions,
    generator: torch.Generator,  # noqa: ARG001 - nothing is random here
    watcher: Watcher,
) -> MatchResult:
    """Pair the units that do most alike on the examples, every group by itself.

    Where one activation carries several groups (heads, and units within heads), they are solved
    in turn until nothing improves.

    Args:
        problem: The two models and the examples.
        options: Options.
        generator: Not used.
        watcher: Told after every batch; if it stops the work, the examples read so far decide.

    Returns:
        The permutations; the objective is the summed similarity at the identity and at the end.
    """
    batches = _limited(problem.examples("activation matching"), options.examples)
    derivation, sites = activation_sites(problem.model, problem.spec, (batches[0][0][:2],))
    read: list[Moments] = []
    stopped = False
    total = sum(len(y) for _, y in batches)
    try:
        models = (problem.params_a, problem.params_b)
        for now in stream_moments(derivation, sites, models, batches, watcher.on_progress, total):
            read = now
    except StoppedError:
        stopped = True
    scored = [(m, m.similarity(options.similarity)) for m in read]
    start = identity_permutations(problem.spec)
    perms = _solve(scored, start)
    objective = (_score(scored, start), _score(scored, perms))
    return MatchResult(
        perms,
        objective,
        f"{options.similarity} of paired units, summed over units",
        converged=not stopped,
        stopped=stopped,
    )


def _limited(
    batches: Sequence[tuple[Tensor, Tensor]], examples: int
) -> list[tuple[Tensor, Tensor]]:
    left = examples or sum(len(y) for _, y in batches)
    taken = []
    for x, y in batches:
        if left > 0:
            taken.append((x[:left], y[:left]))
            left -= len(y)
    return taken


def _solve(scored: Sequence[tuple[Moments, Tensor]], start: Permutations) -> Permutations:
    perms = dict(start)
    stale = set(perms)
    while stale:
        for group in list(perms):
            if group not in stale:
                continue
            stale.discard(group)
            touching = [(m, s) for m, s in scored if group in m.groups]
            if not touching:
                continue
            matrix = sum((_for_group(m, s, group, perms) for m, s in touching), torch.zeros(()))
            best, rows = solve_assignment(matrix), torch.arange(len(perms[group]))
            gain = float((matrix[rows, best] - matrix[rows, perms[group]]).sum())
            if gain > 1e-12 * float(matrix.abs().sum()):
                perms[group] = best
                stale |= {g for m, _ in touching for g in m.groups} - {group}
    return perms


def _for_group(moments: Moments, similarity: Tensor, group: str, perms: Permutations) -> Tensor:
    """Similarity of one group's units with the other factors of the joint units held."""
    k, count = moments.groups.index(group), len(moments.groups)
    joint = similarity.reshape(*moments.sizes, *moments.sizes)
    for j, other in enumerate(moments.groups):
        if j != k:
            joint = joint.index_select(count + j, perms[other])
    # Sum over equal positions of the other factors.
    left = list(range(count))
    right = [count if j == k else j for j in range(count)]
    return torch.einsum(joint, left + right, [k, count])


def _score(scored: Sequence[tuple[Moments, Tensor]], perms: Permutations) -> float:
    total = 0.0
    for moments, similarity in scored:
        matrix = _for_group(moments, similarity, moments.groups[0], perms)
        perm = perms[moments.groups[0]]
        total += float(matrix[torch.arange(len(perm)), perm].sum())
    return total


METHOD = Method(find_card("activation"), match_activations)
