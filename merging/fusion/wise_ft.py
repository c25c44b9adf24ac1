"""WiSE-FT: part of the way from the base to what was fine-tuned from it."""

from __future__ import annotations

from torch import Tensor

from merging.fusion.base import FusionProblem, Rule, computable, weighted_mean
from merging.rules import WiseFtOptions, find_rule_card


def wise_ft(problem: FusionProblem, name: str, options: WiseFtOptions) -> Tensor:
    """`(1 - t) * base + t * mean` (Wortsman et al. 2022, §3)."""
    base = computable(problem.base_tensor(name)) * (1 - options.t)
    return base.add_(weighted_mean(problem, name), alpha=options.t)


RULE = Rule(find_rule_card("wise_ft"), wise_ft)
