"""Uncertainty-based gradient matching (Daheim et al. 2024, arXiv 2310.12808)."""

from __future__ import annotations

import torch
from torch import Tensor

from merging.fusion.blocks import Entries, entrywise
from merging.fusion.problem import FusionProblem
from merging.fusion.rule import Rule
from merging.schema.cards.fusion.curvature import GradientMatchingOptions
from merging.schema.cards.fusion.table import find_card
from merging.schema.errors import MergingError


def gradient_matching(
    problem: FusionProblem, name: str, options: GradientMatchingOptions
) -> Entries:
    """Return `base + sum_t a_t (H_0 + H_t) / (H_0 + sum_s a_s H_s) (theta_t - base)` (Eq. 12).

    Curvatures are on the scale of the sum over the data set, so its size is in them; the prior's
    precision delta is added to the base's.

    Raises:
        MergingError: If the base's curvature is missing, or the sum of curvatures is not positive.
    """
    weights, count = problem.weights, len(problem.weights)

    def merge(blocks: list[Tensor]) -> Tensor:
        base, h0, *rest = blocks
        thetas = rest[:count]
        h0, curvatures = _as_asked(h0, rest[count:], options)
        total = h0.clone()
        for weight, curvature in zip(weights, curvatures, strict=True):
            total.add_(curvature, alpha=weight)
        if bool((total <= 0).any()):
            raise MergingError(
                f"the curvatures of {name!r} do not add up to positive ones; use positive "
                "weights, or remove_task to take a task away"
            )
        fused = base.clone()
        for weight, curvature, theta in zip(weights, curvatures, thetas, strict=True):
            fused += weight * (h0 + curvature) / total * (theta - base)
        return fused

    return entrywise(
        merge,
        [
            problem.base_tensor(name), problem.base_curvature(name),
            *problem.tensors(name), *problem.curvatures(name),
        ],
    )  # fmt: skip


def implied_weights(problem: FusionProblem, name: str, delta: float = 1e-12) -> Tensor:
    """Return the weight that each entry of each task vector gets in Eq. 12.

    Args:
        problem: The models, the base, and their curvatures.
        name: The tensor.
        delta: The prior's precision.

    Returns:
        `[models, ...]`; entries near 1 are task arithmetic's, smaller ones share with other tasks.

    Raises:
        MergingError: If a curvature is missing.
    """
    curvatures = torch.stack([curvature.tensor() for curvature in problem.curvatures(name)])
    h0 = problem.base_curvature(name).tensor(curvatures.dtype) + delta
    weights = torch.tensor(list(problem.weights), dtype=curvatures.dtype)
    weights = weights.view(-1, *[1] * (curvatures.dim() - 1))
    return weights * (h0 + curvatures) / (h0 + (weights * curvatures).sum(0))


def _as_asked(
    h0: Tensor, curvatures: list[Tensor], options: GradientMatchingOptions
) -> tuple[Tensor, list[Tensor]]:
    """Return the curvatures with the prior added, and zeros for those that are left out."""
    if options.h0 == "left out":
        h0 = torch.zeros_like(h0)
    if options.ht == "left out":
        curvatures = [torch.zeros_like(h0)] * len(curvatures)
    return h0 + options.delta, curvatures


RULE = Rule(find_card("gradient_matching"), gradient_matching)
