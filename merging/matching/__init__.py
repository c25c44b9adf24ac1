"""Which permutation lines two models up: one file per method, one table of them."""

from merging.matching.base import MatchProblem, MatchResult, Method
from merging.matching.registry import METHODS, match
from merging.matching.units import describe_units

__all__ = ["METHODS", "MatchProblem", "MatchResult", "Method", "describe_units", "match"]
