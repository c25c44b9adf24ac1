"""What every fusion rule shares: the problem, how a rule is described, and entries in blocks.

A rule works on one tensor of all models at a time, so models may be files that are read as they
are needed (`checkpoints.open_checkpoint`). What it computes entry by entry, it computes in blocks
of a few megabytes, so memory holds one tensor per model and a little more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from itertools import combinations_with_replacement
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from merging.errors import MergingError
from merging.rules import RuleCard

State = Mapping[str, Tensor]
OnProgress = Callable[[float, float, str], None]
Examples = Iterable[tuple[Tensor, Tensor]]
Buffers = Literal["rule", "mean", "first"]

_BLOCK = 1 << 20  # entries
_STRETCH = 1 << 12
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
        specs = getattr(self.models[0], "specs", self.models[0])
        dtype: torch.dtype = specs[name].dtype
        return dtype.is_floating_point

    def tensors(self, name: str) -> list[Tensor]:
        """One tensor of every model."""
        return [model[name].detach() for model in self.models]

    def base_tensor(self, name: str) -> Tensor:
        """The base's tensor.

        Raises:
            MergingError: If there is no base.
        """
        if self.base is None:
            raise MergingError("this rule needs the base model that all were fine-tuned from")
        return self.base[name].detach()

    def curvatures(self, name: str) -> list[Tensor]:
        """One tensor of every model's curvature.

        Raises:
            MergingError: If there are none, or if any is negative.
        """
        if self.fishers is None:
            raise MergingError("this rule needs `fishers`, one per model: see diagonal_fisher")
        return [_curvature(fisher, name, f"model {k + 1}") for k, fisher in enumerate(self.fishers)]

    def base_curvature(self, name: str) -> Tensor:
        """One tensor of the base's curvature.

        Raises:
            MergingError: If there is none, or if any is negative.
        """
        if self.base_fisher is None:
            raise MergingError("this rule needs `base_fisher`, the base model's curvature")
        return _curvature(self.base_fisher, name, "the base")

    def reweighted(self, weights: Sequence[float], **notes: Any) -> FusionProblem:
        """The same models with other weights, and what is to be said of them."""
        return replace(self, weights=list(weights), notes={**self.notes, **notes})


@dataclass(frozen=True)
class Counted:
    """A fused tensor, and how many of its entries something befell.

    Attributes:
        value: The tensor.
        counts: Entries by what befell them; notes give their share of all entries.
    """

    value: Tensor
    counts: Mapping[str, int]


Prepare = Callable[[FusionProblem, Any, OnProgress], FusionProblem]


@dataclass(frozen=True)
class Rule:
    """A way to fuse models: its card, and its functions.

    Attributes:
        card: What it is.
        fuse: The fused tensor of one name, floating, in any type.
        prepare: What has to be known of the whole models first: it returns the problem with the
            weights and notes that it found.
    """

    card: RuleCard
    fuse: Callable[[FusionProblem, str, Any], Tensor | Counted]
    prepare: Prepare | None = None

    @property
    def options(self) -> type:
        """The dataclass of its options."""
        return self.card.options


def weighted_mean(problem: FusionProblem, name: str, _: object = None) -> Tensor:
    """`sum_t w_t theta_t / sum_t w_t`; a model of weight 0 is not read."""
    scale = sum(problem.weights)
    total: Tensor | None = None
    for weight, model in zip(problem.weights, problem.models, strict=True):
        if weight == 0:
            continue
        tensor = computable(model[name])
        if total is None:
            total = tensor * (weight / scale)
        else:
            total.add_(tensor, alpha=weight / scale)
    assert total is not None  # weights that add up to 0 are refused
    return total


def entrywise(function: Callable[[list[Tensor]], Tensor], tensors: Sequence[Tensor]) -> Tensor:
    """Apply a function of entries to tensors of one shape, block by block.

    Args:
        function: Takes blocks `[n]` of all tensors, in the type that is computed in, and returns a
            block `[n]`; it is called for one block after another.
        tensors: Any floating types.

    Returns:
        A new tensor in their shape, and in the narrowest type that holds all of theirs.

    Example:
        >>> entrywise(lambda blocks: blocks[0] + blocks[1], [torch.ones(2), torch.ones(2)])
        tensor([2., 2.])
    """
    dtype = reduce(torch.promote_types, [tensor.dtype for tensor in tensors])
    result = torch.empty(tensors[0].shape, dtype=dtype)
    into = result.view(-1)
    for start, blocks in _blocks(tensors):
        into[start : start + len(blocks[0])] = function(blocks)
    return result


def inner_products(tensors: Sequence[Tensor], origin: Tensor | None = None) -> Tensor:
    """Inner products of all pairs of tensors, seen from an origin.

    Args:
        tensors: Of one shape.
        origin: What is subtracted from each; nothing unless given.

    Returns:
        float64 `[tensors, tensors]`; blocks are summed in the type that is computed in.

    Example:
        >>> inner_products([torch.tensor([1.0, 2.0]), torch.tensor([3.0, 0.0])]).tolist()
        [[5.0, 3.0], [3.0, 9.0]]
    """
    count = len(tensors)
    total = torch.zeros(count, count, dtype=torch.float64)
    for _, blocks in _blocks([*tensors, *([] if origin is None else [origin])]):
        rows = blocks if origin is None else [block - blocks[-1] for block in blocks[:-1]]
        for i, j in combinations_with_replacement(range(count), 2):
            total[i, j] += _dot(rows[i].numpy(), rows[j].numpy())
    return total.triu() + total.triu(1).T


def _dot(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Inner product of two vectors: short stretches in their own type, and these in float64.

    NumPy's `einsum` makes no products in memory, which BLAS would not either, but it sums a
    whole block in float32.
    """
    whole = len(a) // _STRETCH * _STRETCH
    parts = np.einsum("ij,ij->i", a[:whole].reshape(-1, _STRETCH), b[:whole].reshape(-1, _STRETCH))
    rest = np.einsum("i,i->", a[whole:], b[whole:])
    return float(parts.sum(dtype=np.float64)) + float(rest)


def computable(tensor: Tensor) -> Tensor:
    """The tensor in the type that is computed in: float32, or float64 if it is that."""
    plain = tensor.detach()
    return plain if plain.dtype == torch.float64 else plain.to(torch.float32)


def type_of_examples(batches: Examples) -> torch.dtype:
    """The type in which models read these examples: that of the inputs, or float32 for tokens."""
    dtype: torch.dtype = next(iter(batches))[0].dtype
    return dtype if dtype.is_floating_point else torch.float32


def _blocks(tensors: Sequence[Tensor]) -> Iterator[tuple[int, list[Tensor]]]:
    flat = [tensor.reshape(-1) for tensor in tensors]
    for start in range(0, flat[0].numel(), _BLOCK):
        yield start, [computable(values[start : start + _BLOCK]) for values in flat]


def _curvature(fisher: State, name: str, whose: str) -> Tensor:
    if name not in fisher:
        raise MergingError(
            f"the curvature of {whose} has no {name!r}; take it with diagonal_fisher, whose result "
            "has every floating tensor"
        )
    value = fisher[name]
    if bool((value < 0).any()):
        raise MergingError(f"the curvature of {name!r} of {whose} has negative entries")
    return value
