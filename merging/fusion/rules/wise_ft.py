"""WiSE-FT: part of the way from the base to what was fine-tuned from it."""

from __future__ import annotations

from merging.fusion.blocks import Entries, entrywise
from merging.fusion.problem import FusionProblem
from merging.fusion.rule import Rule, weighted_mean
from merging.schema.cards.fusion.means import WiseFtOptions
from merging.schema.cards.fusion.table import find_rule_card


def wise_ft(problem: FusionProblem, name: str, options: WiseFtOptions) -> Entries:
    """`(1 - t) * base + t * mean` (Wortsman et al. 2022, §3)."""
    return entrywise(
        lambda blocks: (blocks[0] * (1 - options.t)).add_(blocks[1], alpha=options.t),
        [problem.base_tensor(name), weighted_mean(problem, name)],
    )


RULE = Rule(find_rule_card("wise_ft"), wise_ft)
