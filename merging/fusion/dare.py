"""DARE: drop most of each task vector at random and rescale the rest."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import torch
from torch import Tensor

from merging.errors import MergingError
from merging.fusion.base import FusionProblem, Rule, RuleCard


@dataclass(frozen=True)
class DareOptions:
    """Options of DARE.

    Attributes:
        drop: Share of each task vector's entries that is dropped.
    """

    drop: float = 0.9


def dare(problem: FusionProblem, name: str, options: DareOptions) -> Tensor:
    """`base + sum_t w_t m_t (theta_t - base) / (1 - drop)` with random masks `m_t`.

    The masks depend on the seed, the model's number and the tensor's name only.

    Raises:
        MergingError: If the share is not in [0, 1).
    """
    if not 0 <= options.drop < 1:
        raise MergingError(f"drop is a share, 0 <= drop < 1, not {options.drop}")
    base, tasks = problem.task_vectors(name)
    for k, (weight, task) in enumerate(zip(problem.weights, tasks, strict=True)):
        seed = zlib.crc32(f"{problem.seed}/{k}/{name}".encode())
        generator = torch.Generator().manual_seed(seed)
        kept = torch.rand(task.shape, generator=generator) >= options.drop
        base = base + weight * task.where(kept, 0.0) / (1 - options.drop)
    return base


RULE = Rule(
    RuleCard(
        "dare",
        "DARE",
        "θ = θ₀ + Σ αₜ mₜ ⊙ (θₜ − θ₀) / (1 − p), mₜ ~ Bernoulli(1 − p)",
        "Task vectors are small and redundant; expectation is task arithmetic's.",
        "Large task vectors: dropping adds noise.",
        "Yu et al. 2024, arXiv 2311.03099",
        needs_base=True,
    ),
    DareOptions,
    dare,
)
