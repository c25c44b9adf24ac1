"""Task arithmetic: what fine-tuning added, added up."""

from __future__ import annotations

from torch import Tensor

from merging.fusion.base import FusionProblem, NoOptions, Rule, RuleCard


def task_arithmetic(problem: FusionProblem, name: str, _: NoOptions) -> Tensor:
    """`base + sum_t w_t (theta_t - base)`; a negative weight takes a task away."""
    base, tasks = problem.task_vectors(name)
    for weight, task in zip(problem.weights, tasks, strict=True):
        base = base + weight * task
    return base


RULE = Rule(
    RuleCard(
        "task_arithmetic",
        "Task arithmetic",
        "θ = θ₀ + Σ αₜ (θₜ − θ₀)",
        "Small steps from one base; α tuned on validation data (often about 0.3).",
        "Many tasks with α = 1: the sum overshoots.",
        "Ilharco et al. 2023, arXiv 2212.04089",
        needs_base=True,
    ),
    NoOptions,
    task_arithmetic,
)
