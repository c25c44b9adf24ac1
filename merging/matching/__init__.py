"""Which permutation lines two models up: one file per method, one table of them."""

from merging.matching.base import MatchProblem, MatchResult, Method
from merging.matching.registry import METHODS, find_method, match, read_options

__all__ = [
    "METHODS",
    "MatchProblem",
    "MatchResult",
    "Method",
    "find_method",
    "match",
    "read_options",
]
