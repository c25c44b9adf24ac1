"""Rules that take a weighted mean: of all alike, by a caller's weights or sizes, from a base."""

from __future__ import annotations

from merging.fusion.blocks import Entries, entrywise
from merging.fusion.problem import FusionProblem
from merging.fusion.rule import Rule, weighted_mean
from merging.schema.cards.fusion.card import NoOptions
from merging.schema.cards.fusion.means import WiseFtOptions
from merging.schema.cards.fusion.table import find_card
from merging.schema.progress import Progress


def wise_ft(problem: FusionProblem, name: str, options: WiseFtOptions) -> Entries:
    """Return `(1 - t) * base + t * mean` (Wortsman et al. 2022, §3)."""
    return entrywise(
        lambda blocks: (blocks[0] * (1 - options.t)).add_(blocks[1], alpha=options.t),
        [problem.base_tensor(name), weighted_mean(problem, name)],
    )


def weigh_by_size(problem: FusionProblem, _: NoOptions, __: Progress) -> FusionProblem:
    """Take the numbers of examples for weights (McMahan et al. 2017, Algorithm 1)."""
    sizes = list(problem.sizes or ())
    return problem.reweighted(sizes, shares=[size / sum(sizes) for size in sizes])


AVERAGE = Rule(find_card("average"), weighted_mean)
WISE_FT = Rule(find_card("wise_ft"), wise_ft)
FEDAVG = Rule(find_card("fedavg"), weighted_mean, weigh_by_size)
UNIFORM_SOUP = Rule(find_card("uniform_soup"), weighted_mean)
