"""Every fusion rule that works tensor by tensor, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from merging.fusion.rule import Rule
from merging.fusion.rules import (
    dare,
    fisher,
    gradient_matching,
    greedy_soup,
    krum,
    learned_soup,
    means,
    model_stock,
    regmean,
    remove_task,
    robust,
    slerp,
    task_arithmetic,
    ties,
    trajectory,
)

RULES: Mapping[str, Rule] = MappingProxyType({
    rule.card.name: rule
    for rule in (
        means.AVERAGE,
        slerp.RULE,
        means.WISE_FT,
        means.FEDAVG,
        task_arithmetic.RULE,
        ties.RULE,
        dare.RULE,
        model_stock.RULE,
        fisher.RULE,
        fisher.UNIT_RULE,
        gradient_matching.RULE,
        remove_task.RULE,
        regmean.RULE,
        means.UNIFORM_SOUP,
        greedy_soup.RULE,
        learned_soup.RULE,
        trajectory.SWA,
        trajectory.EMA,
        trajectory.LAWA,
        robust.MEDIAN,
        robust.TRIMMED,
        krum.RULE,
    )
})
