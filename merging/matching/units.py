"""How the units of a group are paired: similarity before and after, margins, cycles."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from merging.matching.base import MatchProblem
from merging.matching.similarity import WeightSimilarity, units_first
from merging.permutation import cycles, identity_permutations
from merging.records import GroupUnits

# Rows and columns of a similarity that a screen gets at the most.
_SHOWN = 256


def describe_units(problem: MatchProblem, perms: Mapping[str, Tensor]) -> list[GroupUnits]:
    """Compare the units of both models by their weights, for every group.

    The similarity is the cosine of the units' incoming and outgoing weights, taken together, with
    all other groups of B in the order of the permutations.

    Args:
        problem: The two models.
        perms: One permutation per group.

    Returns:
        One record per group.
    """
    weights = WeightSimilarity(problem.spec, problem.params_a, problem.params_b, problem.weights)
    full = {**identity_permutations(problem.spec), **perms}
    return [_describe(weights, group, full) for group in problem.spec.sizes]


def _describe(weights: WeightSimilarity, group: str, perms: Mapping[str, Tensor]) -> GroupUnits:
    perm = perms[group]
    matrix = weights.matrix(group, perms)
    lengths_a = _unit_norms(weights, weights.params_a, group)
    lengths_b = _unit_norms(weights, weights.params_b, group)
    cosine = matrix / (lengths_a[:, None] * lengths_b[None, :]).clamp_min(1e-30)
    n = len(perm)
    matched = cosine[torch.arange(n), perm]
    others = cosine.clone()
    others[torch.arange(n), perm] = -torch.inf
    margin = matched - (others.max(1).values if n > 1 else torch.zeros(n))
    block = -(-n // _SHOWN)
    return GroupUnits(
        group,
        perm.numpy(),
        _shown(cosine, block),
        _shown(cosine[:, perm], block),
        block,
        matched.numpy(),
        margin.numpy(),
        int((perm == torch.arange(n)).sum()),
        tuple(cycles(perm)),
    )


def _unit_norms(weights: WeightSimilarity, params: Mapping[str, Tensor], group: str) -> Tensor:
    """Length of every unit's weights; the order of the other groups does not matter to it."""
    total = torch.zeros(weights.sizes[group], dtype=torch.float64)
    for name, axis in weights.places[group]:
        for units in units_first(params[name], axis, weights.axes[name][axis], group):
            total += (units**2).sum(1)
    return total.sqrt()


def _shown(cosine: Tensor, block: int) -> NDArray[np.int8]:
    """The matrix in 1/127, each block of units standing for its largest absolute value."""
    if block > 1:
        padded = torch.nn.functional.pad(cosine, (0, -len(cosine) % block) * 2)
        n = len(padded) // block
        blocks = padded.reshape(n, block, n, block).permute(0, 2, 1, 3).flatten(2)
        largest = blocks.abs().argmax(-1, keepdim=True)
        cosine = blocks.gather(-1, largest)[..., 0]
    whole = (127 * cosine.clamp(-1, 1)).round().to(torch.int8)
    shown: NDArray[np.int8] = whole.numpy()
    return shown
