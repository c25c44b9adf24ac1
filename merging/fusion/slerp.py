"""Spherical interpolation of two models."""

from __future__ import annotations

import torch
from torch import Tensor

from merging.errors import MergingError
from merging.fusion.base import FusionProblem, NoOptions, Rule, RuleCard

_PARALLEL = 1e-4  # angle in radians below which the arc is the line


def slerp(problem: FusionProblem, name: str, _: NoOptions) -> Tensor:
    """Go along the arc between two tensors; the share of the second is `w_2 / (w_1 + w_2)`.

    Raises:
        MergingError: If there are not two models.
    """
    if len(problem.models) != 2:
        raise MergingError(f"SLERP takes two models, not {len(problem.models)}")
    a, b = problem.tensors(name)
    lam = problem.weights[1] / sum(problem.weights)
    wide_a, wide_b = a.double().flatten(), b.double().flatten()
    lengths = float(wide_a.norm() * wide_b.norm())
    cosine = float(wide_a @ wide_b) / lengths if lengths else 1.0
    angle = float(torch.arccos(torch.tensor(max(-1.0, min(1.0, cosine)), dtype=torch.float64)))
    if angle < _PARALLEL or torch.pi - angle < _PARALLEL:
        return (1 - lam) * a + lam * b
    sine = torch.sin(torch.tensor(angle, dtype=torch.float64))
    first = float(torch.sin(torch.tensor((1 - lam) * angle, dtype=torch.float64)) / sine)
    second = float(torch.sin(torch.tensor(lam * angle, dtype=torch.float64)) / sine)
    return first * a + second * b


RULE = Rule(
    RuleCard(
        "slerp",
        "SLERP",
        "θ = sin((1−λ)Ω)/sin Ω · θ₁ + sin(λΩ)/sin Ω · θ₂, Ω the angle between the tensors",
        "Two models in one basin whose norms matter.",
        "More than two models; tensors that point in opposite ways (the line is taken).",
        "Shoemake 1985; used for weights since Git Re-Basin's code",
    ),
    NoOptions,
    slerp,
)
