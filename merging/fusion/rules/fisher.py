"""Fisher-weighted averaging (Matena and Raffel 2022), and with all factors 1."""

from __future__ import annotations

import torch
from torch import Tensor

from merging.fusion.blocks import Entries, entrywise
from merging.fusion.problem import FusionProblem
from merging.fusion.rule import Rule
from merging.schema.cards.fusion.curvature import FisherOptions
from merging.schema.cards.fusion.table import find_card


def fisher(problem: FusionProblem, name: str, options: FisherOptions) -> Entries:
    """Return `sum_t w_t F_t theta_t / sum_t w_t F_t`, entry by entry."""
    weights, scale = problem.weights, sum(problem.weights)

    def merge(blocks: list[Tensor]) -> Tensor:
        thetas, curvatures = blocks[: len(weights)], blocks[len(weights) :]
        weighted = [w * f for w, f in zip(weights, curvatures, strict=True)]
        total = sum(weighted[1:], start=weighted[0])
        mean = sum(w / scale * t for w, t in zip(weights, thetas, strict=True))
        fused = sum(f * t for f, t in zip(weighted, thetas, strict=True))
        steep = total.abs() > options.floor
        return torch.where(steep, fused / total.where(steep, 1.0), mean)

    return entrywise(merge, [*problem.tensors(name), *problem.curvatures(name)])


RULE = Rule(find_card("fisher"), fisher)

# FA1 in Table 1 of Daheim et al. (2024): the problem is posed with all weights 1.
UNIT_RULE = Rule(find_card("fisher_unit"), fisher)
