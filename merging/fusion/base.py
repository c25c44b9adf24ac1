"""What every fusion rule shares: the problem, how a rule is described, and the weighted mean.

A rule works on one tensor of all models at a time, and says what comes of it as `Entries`, which
are computed block by block, so models may be files that are read as they are needed
(`checkpoints.open_checkpoint`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from merging.errors import MergingError
from merging.fusion.blocks import Entries, entries, entrywise, specs_of
from merging.rules import RuleCard

State = Mapping[str, Tensor]
OnProgress = Callable[[float, float, str], None]
Examples = Iterable[tuple[Tensor, Tensor]]
Buffers = Literal["rule", "mean", "first"]

_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class FusionProblem:
    """Models that are to become one.

    Attributes:
        models: State dicts with the same names and shapes; any mapping will do.
        base: What they were all fine-tuned from, or None.
        weights: One number per model.
        fishers: For each model, the diagonal of its curvature on the scale of its loss's *sum*.
        base_fisher: The same of the base model.
        grams: For each model, Gram matrices of what its layers read, by the weights' names.
        sizes: For each model, how many examples it was trained on.
        model: The architecture.
        batches: Validation examples.
        seed: For rules that draw at random.
        notes: What the rule found out on the way; plain values.
    """

    models: Sequence[State]
    base: State | None
    weights: Sequence[float]
    fishers: Sequence[State] | None = None
    base_fisher: State | None = None
    grams: Sequence[State] | None = None
    sizes: Sequence[float] | None = None
    model: nn.Module | None = None
    batches: Examples | None = None
    seed: int = 0
    notes: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def statistics(self) -> frozenset[str]:
        """Floating tensors that are buffers: of the architecture, or by their names without one."""
        if self.model is not None:
            buffers = {n for n, _ in self.model.named_buffers(remove_duplicate=False)}
        else:
            buffers = {n for n in self.models[0] if n.rpartition(".")[2] in _STATISTICS}
        return frozenset(n for n in buffers if n in self.models[0] and self.is_floating(n))

    def is_floating(self, name: str) -> bool:
        """Whether a tensor holds numbers that have a mean; files are not read for it."""
        dtype: torch.dtype = specs_of(self.models[0])[name].dtype
        return dtype.is_floating_point

    def tensors(self, name: str) -> list[Entries]:
        """One tensor of every model."""
        return [entries(model, name) for model in self.models]

    def base_tensor(self, name: str) -> Entries:
        """The base's tensor.

        Raises:
            MergingError: If there is no base.
        """
        if self.base is None:
            raise MergingError("this rule needs the base model that all were fine-tuned from")
        return entries(self.base, name)

    def curvatures(self, name: str) -> list[Entries]:
        """One tensor of every model's curvature; that none is negative is checked as it is read.

        Raises:
            MergingError: If there are none, or one has another shape than the models.
        """
        if self.fishers is None:
            raise MergingError("this rule needs `fishers`, one per model: see diagonal_fisher")
        shape = entries(self.models[0], name).shape
        return [
            _curvature(fisher, name, f"model {k + 1}", shape)
            for k, fisher in enumerate(self.fishers)
        ]

    def base_curvature(self, name: str) -> Entries:
        """One tensor of the base's curvature; that none is negative is checked as it is read.

        Raises:
            MergingError: If there is none, or it has another shape than the models.
        """
        if self.base_fisher is None:
            raise MergingError("this rule needs `base_fisher`, the base model's curvature")
        shape = entries(self.models[0], name).shape
        return _curvature(self.base_fisher, name, "the base", shape)

    def reweighted(self, weights: Sequence[float], **notes: Any) -> FusionProblem:
        """The same models with other weights, and what is to be said of them."""
        return replace(self, weights=list(weights), notes={**self.notes, **notes})


@dataclass(frozen=True)
class Counted:
    """A fused tensor, and how many of its entries something befell.

    Attributes:
        value: The tensor.
        counts: Entries by what befell them, once all were computed; notes give their share of all.
    """

    value: Entries
    counts: Mapping[str, int]


Prepare = Callable[[FusionProblem, Any, OnProgress], FusionProblem]


@dataclass(frozen=True)
class Rule:
    """A way to fuse models: its card, and its functions.

    Attributes:
        card: What it is.
        fuse: The fused tensor of one name, floating, in any type; its entries are computed once.
        prepare: What has to be known of the whole models first: it returns the problem with the
            weights and notes that it found.
    """

    card: RuleCard
    fuse: Callable[[FusionProblem, str, Any], Entries | Counted]
    prepare: Prepare | None = None

    @property
    def options(self) -> type:
        """The dataclass of its options."""
        return self.card.options


def weighted_mean(problem: FusionProblem, name: str, _: object = None) -> Entries:
    """`sum_t w_t theta_t / sum_t w_t`; a model of weight 0 is not read.

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


def type_of_examples(batches: Examples) -> torch.dtype:
    """The type in which models read these examples: that of the inputs, or float32 for tokens."""
    dtype: torch.dtype = next(iter(batches))[0].dtype
    return dtype if dtype.is_floating_point else torch.float32


def _curvature(fisher: State, name: str, whose: str, shape: tuple[int, ...]) -> Entries:
    if name not in fisher:
        raise MergingError(
            f"the curvature of {whose} has no {name!r}; take it with diagonal_fisher, whose result "
            "has every floating tensor"
        )
    stored = entries(fisher, name)
    if stored.shape != shape:
        raise MergingError(
            f"the curvature of {name!r} of {whose} is {list(stored.shape)}, and the tensor "
            f"{list(shape)}; take it with diagonal_fisher from the same architecture"
        )

    def checked() -> Iterator[Tensor]:
        for block in stored:
            if bool((block < 0).any()):
                raise MergingError(f"the curvature of {name!r} of {whose} has negative entries")
            yield block

    return replace(stored, blocks=checked)
