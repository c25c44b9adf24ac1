"""What every fusion rule shares: the problem, how a rule is described, and the weighted mean.

A rule works on one tensor of all models at a time, and says what comes of it as `Entries`, which
are computed block by block, so models may be files that are read as they are needed
(`checkpoints.open_checkpoint`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from merging.files.data.batches import BatchesLike
from merging.fusion.blocks import Entries, entries, entrywise
from merging.fusion.problem import FusionProblem
from merging.schema.cards.fusion.card import RuleCard
from merging.schema.progress import Progress

Buffers = Literal["rule", "mean", "first"]


@dataclass(frozen=True)
class Counted:
    """A fused tensor, and how many of its entries something befell.

    Attributes:
        value: The tensor.
        counts: Entries by what befell them, once all were computed; notes give their share of all.
    """

    value: Entries
    counts: Mapping[str, int]


PrepareRule = Callable[[FusionProblem, Any, Progress], FusionProblem]


@dataclass(frozen=True)
class Rule:
    """A fusion rule: its card, and its functions.

    Attributes:
        card: What it is.
        fuse: The fused tensor of one name, floating, in any type; its entries are computed once.
        prepare: What has to be known of the whole models first: it returns the problem with the
            weights and notes that it found.
    """

    card: RuleCard
    fuse: Callable[[FusionProblem, str, Any], Entries | Counted]
    prepare: PrepareRule | None = None

    @property
    def options(self) -> type:
        """The dataclass of its options."""
        return self.card.options


def weighted_mean(problem: FusionProblem, name: str, _: object = None) -> Entries:
    """Return `sum_t w_t theta_t / sum_t w_t`; a model of weight 0 is not read.

    Equal weights count as 1 each, so nothing is rounded before the sum is divided.
    """
    largest = max(problem.weights, key=abs)
    used = {k: weight / largest for k, weight in enumerate(problem.weights) if weight}
    shares = list(used.values())

    def mean(blocks: list[Tensor]) -> Tensor:
        total = blocks[0] * shares[0]
        for block, share in zip(blocks[1:], shares[1:], strict=True):
            total.add_(block, alpha=share)
        return total.div_(sum(shares))

    return entrywise(mean, [entries(problem.models[k], name) for k in used])


def type_of_examples(batches: BatchesLike) -> torch.dtype:
    """Return the type in which models read examples: that of the inputs, or float32 for tokens."""
    dtype: torch.dtype = next(iter(batches))[0].dtype
    return dtype if dtype.is_floating_point else torch.float32
