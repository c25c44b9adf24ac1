"""Spherical interpolation of two models."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from merging.fusion.blocks import Entries, entrywise, inner_products
from merging.fusion.problem import FusionProblem
from merging.fusion.rule import Rule
from merging.schema.cards.fusion.means import SlerpOptions
from merging.schema.cards.fusion.table import find_card
from merging.schema.progress import Progress

_PARALLEL = 1e-4  # angle in radians below which the arc is the line
# Which way an arc between opposite tensors leads is left to noise, and unequal lengths make it
# longer than both: the difference of the lengths is divided by the sine of the angle.
_OPPOSITE = 0.1  # radians from opposite within which the line is taken


def find_angle(
    problem: FusionProblem, options: SlerpOptions, on_progress: Progress
) -> FusionProblem:
    """Find the one angle over all weights, if that is asked for; statistics do not count."""
    if options.angle != "over all weights":
        return problem
    first = problem.models[0]
    names = [n for n in first if problem.is_floating(n) and n not in problem.statistics]
    total = torch.zeros(2, 2, dtype=torch.float64)
    for done, name in enumerate(names, start=1):
        total += inner_products(problem.tensors(name))
        on_progress(done, len(names), f"angle: {name}")
    return problem.reweighted(problem.weights, angle=_angle(total))


def slerp(problem: FusionProblem, name: str, options: SlerpOptions) -> Entries:
    """Go along the arc between two models; the share of the second is `w_2 / (w_1 + w_2)`."""
    a, b = problem.tensors(name)
    lam = problem.weights[1] / sum(problem.weights)
    per_tensor = options.angle == "per tensor"
    angle = _angle(inner_products([a, b])) if per_tensor else problem.notes["angle"]
    first, second = _factors(angle, lam)
    return entrywise(lambda blocks: (first * blocks[0]).add_(blocks[1], alpha=second), (a, b))


def _angle(products: Tensor) -> float:
    (aa, ab), (_, bb) = products.tolist()
    lengths = math.sqrt(aa) * math.sqrt(bb)
    cosine = ab / lengths if lengths else 1.0
    return math.acos(max(-1.0, min(1.0, cosine)))


def _factors(angle: float, lam: float) -> tuple[float, float]:
    if angle < _PARALLEL or math.pi - angle < _OPPOSITE:
        return 1 - lam, lam
    return (math.sin((1 - lam) * angle) / math.sin(angle), math.sin(lam * angle) / math.sin(angle))


RULE = Rule(find_card("slerp"), slerp, find_angle)
