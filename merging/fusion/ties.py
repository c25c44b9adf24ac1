"""TIES: trim, elect signs, and average what agrees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from merging.errors import MergingError
from merging.fusion.base import FusionProblem, Rule, RuleCard


@dataclass(frozen=True)
class TiesOptions:
    """Options of TIES.

    Attributes:
        density: Share of each task vector's entries that is kept, the largest ones.
        scale: Factor of the merged task vector.
    """

    density: float = 0.2
    scale: float = 1.0


def ties(problem: FusionProblem, name: str, options: TiesOptions) -> Tensor:
    """Trim each task vector within the tensor, take the sign of the sum, average what has it."""
    base, tasks = problem.task_vectors(name)
    weighted = [w * t for w, t in zip(problem.weights, tasks, strict=True)]
    return base + options.scale * disjoint_mean(
        [trimmed(task, options.density) for task in weighted], problem.weights
    )


def trimmed(task: Tensor, density: float) -> Tensor:
    """Keep the largest entries, and 0 elsewhere.

    Raises:
        MergingError: If the density is not in (0, 1].
    """
    if not 0 < density <= 1:
        raise MergingError(f"density is a share, 0 < density <= 1, not {density}")
    kept = max(1, round(density * task.numel())) if task.numel() else 0
    if kept >= task.numel():
        return task
    least = task.abs().flatten().kthvalue(task.numel() - kept + 1).values
    return task.where(task.abs() >= least, 0.0)


def disjoint_mean(tasks: list[Tensor], weights: object) -> Tensor:
    """Mean, by weight, of the entries that have the sign of the sum."""
    stack = torch.stack(tasks)
    factors = torch.tensor(list(weights), dtype=stack.dtype)  # type: ignore[call-overload]
    agrees = (stack.sign() == stack.sum(0).sign()) & (stack != 0)
    counted = (agrees * factors.abs().view(-1, *[1] * (stack.dim() - 1))).sum(0)
    total = (stack * agrees).sum(0)
    return torch.where(counted > 0, total / counted.clamp_min(1e-30), 0.0)


RULE = Rule(
    RuleCard(
        "ties",
        "TIES",
        "θ = θ₀ + λ · mean over {t : sign agrees} of trim(θₜ − θ₀)",
        "Most of what fine-tuning changed is redundant; signs that conflict are noise.",
        "Few tasks, or large changes everywhere.",
        "Yadav et al. 2023, arXiv 2306.01708",
        needs_base=True,
    ),
    TiesOptions,
    ties,
)
