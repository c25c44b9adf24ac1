"""Which permutation lines two models up: one file per method, one table of them."""

from merging.matching.many.align_many import CycleError, ManyOptions, ManyResult, align_many
from merging.matching.match import METHODS, match
from merging.matching.problem import MatchProblem, MatchResult, Method
from merging.matching.unit_report import describe_units

__all__ = [
    "METHODS",
    "CycleError",
    "ManyOptions",
    "ManyResult",
    "MatchProblem",
    "MatchResult",
    "Method",
    "align_many",
    "describe_units",
    "match",
]
