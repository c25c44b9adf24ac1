"""Uncertainty-based gradient matching (Daheim et al. 2024, arXiv 2310.12808)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from merging.errors import MergingError
from merging.fusion.base import FusionProblem, Rule, RuleCard
from merging.params import Params


@dataclass(frozen=True)
class GradientMatchingOptions:
    """Options of gradient matching.

    Attributes:
        delta: The prior's precision, added to the base's curvature.
    """

    delta: float = 1e-12


def gradient_matching(
    problem: FusionProblem, name: str, options: GradientMatchingOptions
) -> Tensor:
    """Eq. 12: `base + sum_t a_t (H_0 + H_t) / (H_0 + sum_s a_s H_s) (theta_t - base)`.

    Raises:
        MergingError: If the base's curvature is missing, or the sum of curvatures is not positive.
    """
    base, tasks = problem.task_vectors(name)
    curvatures = problem.curvatures(name)
    if problem.base_fisher is None:
        raise MergingError("gradient matching needs `base_fisher`, the base model's curvature")
    h0 = problem.base_fisher[name].to(base.dtype) + options.delta
    total = h0.clone()
    for weight, curvature in zip(problem.weights, curvatures, strict=True):
        total += weight * curvature
    if bool((total <= 0).any()):
        raise MergingError(
            f"the curvatures of {name!r} do not add up to positive ones; use positive weights, or "
            "remove_task to take a task away"
        )
    for weight, curvature, task in zip(problem.weights, curvatures, tasks, strict=True):
        base = base + weight * (h0 + curvature) / total * task
    return base


def remove_task(
    base: Mapping[str, Tensor],
    model: Mapping[str, Tensor],
    base_fisher: Mapping[str, Tensor],
    fisher: Mapping[str, Tensor],
    *,
    weight: float = 1.0,
    delta: float = 1e-12,
    least: float = 1e-12,
) -> tuple[Params, float]:
    """Take what a model learned out of its base again (Eq. 13–14).

    Args:
        base: The base model, whose training data include the task's.
        model: The base fine-tuned on the task.
        base_fisher: Diagonal curvature of the base, on the scale of the sum.
        fisher: Diagonal curvature of the task, on the scale of the sum.
        weight: How much of it to remove.
        delta: The prior's precision.
        least: Where `H_0 - weight * H_t` falls below this, it is clamped.

    Returns:
        The state dict, and the share of the entries that were clamped.
    """
    removed: Params = {}
    clamped = entries = 0
    for name, value in base.items():
        if not value.is_floating_point():
            removed[name] = value.clone()
            continue
        h0 = base_fisher[name].to(value.dtype) + delta
        rest = h0 - weight * fisher[name].to(value.dtype)
        clamped, entries = clamped + int((rest < least).sum()), entries + value.numel()
        step = (h0 + fisher[name].to(value.dtype)) / rest.clamp_min(least)
        removed[name] = value - weight * step * (model[name] - value)
    return removed, clamped / max(1, entries)


def implied_weights(problem: FusionProblem, name: str, delta: float = 1e-12) -> Tensor:
    """The weight that each entry of each task vector gets in Eq. 12.

    Args:
        problem: The models, the base, and their curvatures.
        name: The tensor.
        delta: The prior's precision.

    Returns:
        `[models, ...]`; entries near 1 are task arithmetic's, smaller ones share with other tasks.

    Raises:
        MergingError: If a curvature is missing.
    """
    curvatures = torch.stack(problem.curvatures(name))
    if problem.base_fisher is None:
        raise MergingError("gradient matching needs `base_fisher`, the base model's curvature")
    h0 = problem.base_fisher[name].to(curvatures.dtype) + delta
    weights = torch.tensor(list(problem.weights), dtype=curvatures.dtype)
    weights = weights.view(-1, *[1] * (curvatures.dim() - 1))
    return weights * (h0 + curvatures) / (h0 + (weights * curvatures).sum(0))


RULE = Rule(
    RuleCard(
        "gradient_matching",
        "Gradient matching",
        "θ = θ₀ + Σ αₜ (H₀ + Hₜ) / (H₀ + Σ αₛ Hₛ) · (θₜ − θ₀)",
        "Losses are near quadratic around the models; curvature is taken on training data.",
        "Large steps from the base, over which curvature changes.",
        "Daheim et al. 2024, arXiv 2310.12808",
        needs_base=True,
        needs_fishers=True,
    ),
    GradientMatchingOptions,
    gradient_matching,
)
