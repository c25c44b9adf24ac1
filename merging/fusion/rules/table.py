"""Every fusion rule, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from merging.fusion.rule import Rule
from merging.fusion.rules import (
    dare,
    fedavg,
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
    uniform_soup,
    wise_ft,
)

RULES: Mapping[str, Rule] = MappingProxyType({
    rule.card.name: rule
    for rule in (
        means.RULE,
        slerp.RULE,
        wise_ft.RULE,
        fedavg.RULE,
        task_arithmetic.RULE,
        ties.RULE,
        dare.RULE,
        model_stock.RULE,
        fisher.RULE,
        fisher.UNIT_RULE,
        gradient_matching.RULE,
        remove_task.RULE,
        regmean.RULE,
        uniform_soup.RULE,
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
