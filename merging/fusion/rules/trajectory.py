"""Means of the checkpoints of one run, in their order: what SWA, EMA and LAWA share is the sum."""

from __future__ import annotations

from merging.fusion.problem import FusionProblem
from merging.fusion.rule import Rule, weighted_mean
from merging.schema.cards.fusion.table import find_card
from merging.schema.cards.fusion.trajectory import EmaOptions, LawaOptions, SwaOptions
from merging.schema.errors import MergingError
from merging.schema.progress import Progress


def swa(problem: FusionProblem, options: SwaOptions, _: Progress) -> FusionProblem:
    """Weigh all checkpoints but the first few alike: the running mean's end (Izmailov et al. 2018).

    Running statistics belong to no mean of weights; re-estimate them (`landscape.repair`, RESET).

    Raises:
        MergingError: If no checkpoint is left.
    """
    count = len(problem.models)
    if options.skip >= count:
        raise MergingError(
            f"skipping the first {options.skip} of {count} checkpoints leaves none; skip fewer"
        )
    return problem.reweighted([float(k >= options.skip) for k in range(count)])


def ema(problem: FusionProblem, options: EmaOptions, _: Progress) -> FusionProblem:
    """Weigh checkpoint t of n by `(1 - b) b^(n - t) / (1 - b^n)`: the average without its bias."""
    count, beta = len(problem.models), options.beta
    return problem.reweighted([
        (1 - beta) * beta ** (count - 1 - k) / (1 - beta**count) for k in range(count)
    ])


def lawa(problem: FusionProblem, options: LawaOptions, _: Progress) -> FusionProblem:
    """Weigh the last few checkpoints alike (Kaddour 2022)."""
    count = len(problem.models)
    return problem.reweighted([float(k >= count - options.last) for k in range(count)])


SWA = Rule(find_card("swa"), weighted_mean, swa)
EMA = Rule(find_card("ema"), weighted_mean, ema)
LAWA = Rule(find_card("lawa"), weighted_mean, lawa)
