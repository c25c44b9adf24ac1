"""Activation matching (Ainsworth et al. 2023, §3.1, Eq. 1)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from merging.matching.problem import MatchProblem, MatchResult, Method, Watcher
from merging.matching.search.activation_moments import SiteMoments, activation_sites, stream_moments
from merging.matching.search.nested import Products, children_of, step
from merging.schema.cards.matching import ActivationOptions, find_card
from merging.schema.errors import StoppedError
from merging.symmetry.permutation import Permutations, axis_index, identity_permutations
from merging.symmetry.spec import AxisExpression, PermutationSpec


def match_activations(
    problem: MatchProblem,
    options: ActivationOptions,
    generator: torch.Generator,  # noqa: ARG001 - nothing is random here
    watcher: Watcher,
) -> MatchResult:
    """Pair the units that do most alike on the examples, every group by itself.

    Where one activation carries several groups, they are solved in turn until nothing improves;
    a group (heads) together with what is nested in it (units of a head).

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
    read: list[SiteMoments] = []
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
    perms = _solve(problem.spec, scored, start)
    objective = tuple(_score(problem.spec, scored, found) for found in (start, perms))
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


def _solve(
    spec: PermutationSpec, scored: Sequence[tuple[SiteMoments, Tensor]], start: Permutations
) -> Permutations:
    perms = dict(start)
    stale = set(perms)
    while stale:
        for group in list(perms):
            if group not in stale:
                continue
            stale.discard(group)
            terms = [term for m, s in scored for term in _terms(spec, m, s, group, perms)]
            if not terms:
                continue
            gain, update = step(spec, group, perms, terms)
            if gain > 1e-12 * sum(float(term.joint.abs().sum()) for term in terms):
                perms.update(update)
                stale |= {g for m, _ in scored if set(update) & set(m.groups) for g in m.groups}
                stale = (stale & set(perms)) - {group}
    return perms


def _terms(
    spec: PermutationSpec,
    moments: SiteMoments,
    similarity: Tensor,
    group: str,
    perms: Mapping[str, Tensor],
) -> Iterator[Products]:
    """Yield the similarity of one group's units, relative to B in the order of the permutations.

    Yields:
        One term, or none where the group, or what it is nested in, is not among the joint units.
    """
    within = spec.within
    needed = (*within.get(group, ()), group)
    if not set(needed) <= set(moments.groups):
        return
    children = tuple(child for child in children_of(spec, group) if child in moments.groups)
    order = _joint_order(spec, moments, perms)
    joint = similarity[:, order].reshape(*moments.sizes, *moments.sizes)
    # Sum over equal positions of what is not named; the parents' are kept apart.
    count = len(moments.groups)
    place = {name: k for k, name in enumerate(moments.groups)}
    apart = [place[name] for name in (group, *children)]
    right = [count + k if k in apart else k for k in range(count)]
    parents = [place[name] for name in needed[:-1]]
    pairs = [k for own in apart for k in (own, count + own)]
    found = torch.einsum(joint, [*range(count), *right], [*parents, *pairs])
    rows = found.shape[: len(parents)].numel()
    yield Products(children, found.reshape(rows, *found.shape[len(parents) :]))


def _joint_order(
    spec: PermutationSpec, moments: SiteMoments, perms: Mapping[str, Tensor]
) -> Tensor:
    """Return where the joint units come from when B is permuted."""
    within = spec.within
    atoms = tuple(
        AxisExpression(n, name, within=within.get(name, ()))
        if name in perms
        else AxisExpression(n, fixed=name)
        for name, n in zip(moments.groups, moments.sizes, strict=True)
    )
    joint = AxisExpression(size=math.prod(moments.sizes), group=None, kind="product", parts=atoms)
    order = axis_index(joint, perms)
    return torch.arange(joint.size) if order is None else order


def _score(
    spec: PermutationSpec,
    scored: Sequence[tuple[SiteMoments, Tensor]],
    perms: Mapping[str, Tensor],
) -> float:
    paired = (s.gather(1, _joint_order(spec, m, perms)[:, None]) for m, s in scored)
    return sum(float(values.sum()) for values in paired)


METHOD = Method(find_card("activation"), match_activations)
