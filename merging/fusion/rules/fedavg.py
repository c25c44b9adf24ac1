"""FedAvg: the mean of clients' models, by how many examples each was trained on."""

from __future__ import annotations

from merging.fusion.problem import FusionProblem, OnProgress
from merging.fusion.rule import Rule, weighted_mean
from merging.schema.cards.fusion.card import NoOptions
from merging.schema.cards.fusion.table import find_rule_card


def weigh_by_size(problem: FusionProblem, _: NoOptions, __: OnProgress) -> FusionProblem:
    """Take the numbers of examples for weights (McMahan et al. 2017, Algorithm 1)."""
    sizes = list(problem.sizes or ())
    return problem.reweighted(sizes, shares=[size / sum(sizes) for size in sizes])


RULE = Rule(find_rule_card("fedavg"), weighted_mean, weigh_by_size)
