"""Model Stock: between the mean and the base, as far as the angles between models say."""

from __future__ import annotations

from itertools import combinations

from torch import Tensor

from merging.errors import MergingError
from merging.fusion.base import FusionProblem, NoOptions, Rule, RuleCard


def model_stock(problem: FusionProblem, name: str, _: NoOptions) -> Tensor:
    """`t * mean + (1 - t) * base` with `t = K cos / ((K - 1) cos + 1)`, for every tensor.

    Raises:
        MergingError: If there is only one model.
    """
    base, tasks = problem.task_vectors(name)
    count = len(tasks)
    if count < 2:
        raise MergingError("Model Stock takes two models or more")
    cosines = []
    for a, b in combinations(tasks, 2):
        lengths = float(a.double().norm() * b.double().norm())
        product = float((a.double() * b.double()).sum())
        cosines.append(product / lengths if lengths else 1.0)
    cosine = max(0.0, sum(cosines) / len(cosines))
    share = count * cosine / ((count - 1) * cosine + 1)
    return base + share * sum(tasks[1:], start=tasks[0]) / count


RULE = Rule(
    RuleCard(
        "model_stock",
        "Model Stock",
        "θ = t · mean + (1 − t) · θ₀, t = K cos φ / ((K − 1) cos φ + 1) per tensor",
        "Models fine-tuned on one task with different seeds: they lie on a shell around a centre.",
        "Different tasks, whose angles say nothing of noise.",
        "Jang et al. 2024, arXiv 2403.19522",
        needs_base=True,
    ),
    NoOptions,
    model_stock,
)
