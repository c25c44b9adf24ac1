"""How the units of a group are paired: similarity before and after, margins, cycles."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from merging.matching.problem import MatchProblem
from merging.matching.search.nested import look_inside
from merging.matching.search.unit_slices import weight_terms
from merging.matching.search.weight_similarity import WeightSimilarity
from merging.schema.records.alignment import GroupUnits
from merging.symmetry.permutation import cycles, flat_permutation, full_permutations
from merging.symmetry.spec import PermutationSpec

# Rows and columns of a similarity that a screen gets at most.
_SHOWN = 256


def describe_units(problem: MatchProblem, perms: Mapping[str, Tensor]) -> list[GroupUnits]:
    """Compare the units of both models by their weights, for every group.

    The similarity is the cosine of the units' incoming and outgoing weights, taken together, with
    all other groups of B in the order of the permutations. Units of a nested group are those in
    all positions of its parents, side by side; what is nested in a group is in the best order for
    every pair of its units.

    Args:
        problem: The two models.
        perms: One permutation per group.

    Returns:
        One record per group.
    """
    weights = WeightSimilarity(problem.spec, problem.params_a, problem.params_b, problem.weights)
    full = full_permutations(problem.spec, perms)
    return [_describe(weights, group, full) for group in problem.spec.sizes]


def _describe(weights: WeightSimilarity, group: str, perms: Mapping[str, Tensor]) -> GroupUnits:
    perm = flat_permutation(weights.spec, perms, group)
    cosine = _cosine(weights, group, perms)
    n = len(perm)
    matched = cosine.diagonal()
    others = cosine.clone()
    others.fill_diagonal_(-torch.inf)
    margin = matched - (others.max(1).values if n > 1 else torch.zeros(n))
    block = -(-n // _SHOWN)
    free, fixed = _parents(weights.spec, group)
    return GroupUnits(
        group=group,
        permutation=perm.numpy(),
        before=_shown(cosine[:, torch.argsort(perm)], block),
        after=_shown(cosine, block),
        block=block,
        matched=matched.numpy(),
        margin=margin.numpy(),
        fixed_points=int((perm == torch.arange(n)).sum()),
        cycles=tuple(cycles(perm)),
        parents=free,
        fixed_parents=fixed,
    )


def _parents(spec: PermutationSpec, group: str) -> tuple[tuple[int, ...], int]:
    """Return sizes of a group's parents that may be permuted, and the positions of the others."""
    sizes = dict(zip(spec.within.get(group, ()), spec.shapes[group][:-1], strict=True))
    free = tuple(size for parent, size in sizes.items() if parent in spec.sizes)
    return free, math.prod(sizes.values()) // math.prod(free)


def _cosine(weights: WeightSimilarity, group: str, perms: Mapping[str, Tensor]) -> Tensor:
    """Return cosines `[n, n]` of A's units (rows) with B's in the permutations' order (columns)."""
    n = math.prod(weights.spec.shapes[group])
    product = torch.zeros(n, n, dtype=torch.float64)
    squares_a, squares_b = torch.zeros(2, n, dtype=torch.float64)
    for term in weight_terms(weights, group, perms, children=()):
        a, b = term.a.reshape(n, -1), term.b.reshape(n, -1)
        product += a @ b.T
        squares_a, squares_b = squares_a + (a**2).sum(1), squares_b + (b**2).sum(1)
    if weights.spec.nested_in(group) and group not in weights.spec.within:
        product = look_inside(weight_terms(weights, group, perms)).best[0]
    lengths = squares_a.sqrt()[:, None] * squares_b.sqrt()[None, :]
    return product / lengths.clamp_min(1e-30)


def _shown(cosine: Tensor, block: int) -> NDArray[np.int8]:
    """Return the matrix in 1/127, each block of units standing for its largest absolute value."""
    if block > 1:
        padded = torch.nn.functional.pad(cosine, (0, -len(cosine) % block) * 2)
        n = len(padded) // block
        blocks = padded.reshape(n, block, n, block).permute(0, 2, 1, 3).flatten(2)
        largest = blocks.abs().argmax(-1, keepdim=True)
        cosine = blocks.gather(-1, largest)[..., 0]
    whole = (127 * cosine.clamp(-1, 1)).round().to(torch.int8)
    shown: NDArray[np.int8] = whole.numpy()
    return shown
