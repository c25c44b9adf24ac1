"""Aggregators for models of which some may be bad: median and trimmed mean, entry by entry."""

from __future__ import annotations

import torch
from torch import Tensor

from merging.fusion.base import FusionProblem, Rule
from merging.fusion.blocks import Entries, entrywise
from merging.rules import NoOptions, TrimmedMeanOptions, find_rule_card


def coordinate_median(problem: FusionProblem, name: str, _: NoOptions) -> Entries:
    """The middle entry, or the mean of the two in the middle (Yin et al. 2018, Definition 1)."""
    return _middle(problem, name, (len(problem.models) - 1) // 2)


def trimmed_mean(problem: FusionProblem, name: str, options: TrimmedMeanOptions) -> Entries:
    """The mean without the smallest and the largest entries (Yin et al. 2018, Definition 2)."""
    return _middle(problem, name, int(options.trim * len(problem.models) + 1e-9))


def _middle(problem: FusionProblem, name: str, left_out: int) -> Entries:
    stop = len(problem.models) - left_out

    def merge(blocks: list[Tensor]) -> Tensor:
        return torch.stack(blocks).sort(0).values[left_out:stop].mean(0)

    return entrywise(merge, problem.tensors(name))


MEDIAN = Rule(find_rule_card("coordinate_median"), coordinate_median)
TRIMMED = Rule(find_rule_card("trimmed_mean"), trimmed_mean)
