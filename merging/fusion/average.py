"""The weighted mean of models."""

from __future__ import annotations

from torch import Tensor

from merging.fusion.base import FusionProblem, NoOptions, Rule, RuleCard


def average(problem: FusionProblem, name: str, _: NoOptions) -> Tensor:
    """`sum_t w_t theta_t / sum_t w_t`."""
    total = sum(problem.weights)
    parts = zip(problem.weights, problem.tensors(name), strict=True)
    return sum((w / total) * tensor for w, tensor in parts)  # type: ignore[return-value]


RULE = Rule(
    RuleCard(
        "average",
        "Weighted mean",
        "θ = Σ wₜ θₜ / Σ wₜ",
        "The models lie in one basin: fine-tuned from one base, or aligned.",
        "Models in different basins; more different tasks than the weights have room for.",
        "Wortsman et al. 2022 (uniform soup), arXiv 2203.05482",
    ),
    NoOptions,
    average,
)
