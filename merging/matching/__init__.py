"""Which permutation lines two models up: one file per method, one table of them."""

from merging.matching.base import MatchProblem, MatchResult, Method
from merging.matching.many import CycleError, ManyOptions, ManyResult, align_many
from merging.matching.registry import METHODS, match
from merging.matching.units import describe_units

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
