"""Fisher-weighted averaging."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from merging.fusion.base import FusionProblem, Rule, RuleCard


@dataclass(frozen=True)
class FisherOptions:
    """Options of Fisher averaging.

    Attributes:
        floor: Curvature below which an entry counts as flat; entries that are flat in all models
            get their mean.
    """

    floor: float = 1e-12


def fisher(problem: FusionProblem, name: str, options: FisherOptions) -> Tensor:
    """`sum_t w_t F_t theta_t / sum_t w_t F_t`, entry by entry."""
    tensors, curvatures = problem.tensors(name), problem.curvatures(name)
    weighted = [w * f for w, f in zip(problem.weights, curvatures, strict=True)]
    total = sum(weighted[1:], start=weighted[0])
    mean = sum(w * t for w, t in zip(problem.weights, tensors, strict=True)) / sum(problem.weights)
    fused = sum(f * t for f, t in zip(weighted, tensors, strict=True))
    steep = total.abs() > options.floor
    return torch.where(steep, fused / total.where(steep, 1.0), mean)


RULE = Rule(
    RuleCard(
        "fisher",
        "Fisher averaging",
        "θ = Σ αₜ Fₜ θₜ / Σ αₜ Fₜ",
        "Posteriors are Gaussian with diagonal precision, and independent of a base.",
        "Fine-tuned models, whose dependence on the base it ignores.",
        "Matena and Raffel 2022, arXiv 2111.09832",
        needs_fishers=True,
    ),
    FisherOptions,
    fisher,
)
