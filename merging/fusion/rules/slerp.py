"""Spherical interpolation of two models."""

from __future__ import annotations

import math

from merging.fusion.blocks import Entries, entrywise, inner_products
from merging.fusion.problem import FusionProblem
from merging.fusion.rule import Rule
from merging.schema.cards.fusion.card import NoOptions
from merging.schema.cards.fusion.table import find_card

_PARALLEL = 1e-4  # angle in radians below which the arc is the line


def slerp(problem: FusionProblem, name: str, _: NoOptions) -> Entries:
    """Go along the arc between two tensors; the share of the second is `w_2 / (w_1 + w_2)`."""
    a, b = problem.tensors(name)
    lam = problem.weights[1] / sum(problem.weights)
    first, second = _factors(_angle(a, b), lam)
    return entrywise(lambda blocks: (first * blocks[0]).add_(blocks[1], alpha=second), (a, b))


def _angle(a: Entries, b: Entries) -> float:
    (aa, ab), (_, bb) = inner_products([a, b]).tolist()
    lengths = math.sqrt(aa) * math.sqrt(bb)
    cosine = ab / lengths if lengths else 1.0
    return math.acos(max(-1.0, min(1.0, cosine)))


def _factors(angle: float, lam: float) -> tuple[float, float]:
    if angle < _PARALLEL or math.pi - angle < _PARALLEL:
        return 1 - lam, lam
    return (math.sin((1 - lam) * angle) / math.sin(angle), math.sin(lam * angle) / math.sin(angle))


RULE = Rule(find_card("slerp"), slerp)
