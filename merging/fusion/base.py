"""What every fusion rule shares: the problem, its checks, and the walk from tensor to tensor.

A rule works on one tensor of all models at a time, so models may be files that are read as they
are needed (`checkpoints.open_checkpoint`), and memory holds a few tensors, never all models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from merging.errors import MergingError

State = Mapping[str, Tensor]
OnProgress = Callable[[float, float, str], None]


@dataclass(frozen=True)
class FusionProblem:
    """Models that are to become one.

    Attributes:
        models: State dicts with the same names and shapes; any mapping will do.
        base: What they were all fine-tuned from, or None.
        weights: One number per model.
        fishers: For each model, the diagonal of its curvature on the scale of its loss's *sum*.
        base_fisher: The same of the base model.
        seed: For rules that draw at random.
    """

    models: Sequence[State]
    base: State | None
    weights: Sequence[float]
    fishers: Sequence[State] | None = None
    base_fisher: State | None = None
    seed: int = 0

    def tensors(self, name: str) -> list[Tensor]:
        """One tensor of every model, in the type that is computed in."""
        return [_computable(model[name]) for model in self.models]

    def base_tensor(self, name: str) -> Tensor:
        """The base's tensor.

        Raises:
            MergingError: If there is no base.
        """
        if self.base is None:
            raise MergingError("this rule needs the base model that all were fine-tuned from")
        return _computable(self.base[name])

    def task_vectors(self, name: str) -> tuple[Tensor, list[Tensor]]:
        """The base's tensor, and how far each model went from it."""
        base = self.base_tensor(name)
        return base, [tensor - base for tensor in self.tensors(name)]

    def curvatures(self, name: str) -> list[Tensor]:
        """One tensor of every model's curvature.

        Raises:
            MergingError: If there are none, or if any is negative.
        """
        if self.fishers is None:
            raise MergingError("this rule needs `fishers`, one per model: see diagonal_fisher")
        found = [_computable(fisher[name]) for fisher in self.fishers]
        if any(bool((value < 0).any()) for value in found):
            raise MergingError(f"the curvature of {name!r} has negative entries")
        return found


@dataclass(frozen=True)
class RuleCard:
    """What a rule is, for screens and documents.

    Attributes:
        name: What callers call it.
        title: What screens call it.
        formula: What it computes.
        assumes: What has to hold.
        fails: When it goes wrong.
        paper: Where it is from.
        needs_base: Whether it needs a base model.
        needs_fishers: Whether it needs curvatures.
    """

    name: str
    title: str
    formula: str
    assumes: str
    fails: str
    paper: str
    needs_base: bool = False
    needs_fishers: bool = False


@dataclass(frozen=True)
class Rule:
    """A way to fuse models.

    Attributes:
        card: What it is.
        options: A frozen record of its options, with their defaults.
        fuse: The fused tensor of one name, floating.
    """

    card: RuleCard
    options: type[Any]
    fuse: Callable[[FusionProblem, str, Any], Tensor]


@dataclass(frozen=True)
class NoOptions:
    """For rules without any."""


def floating_names(problem: FusionProblem) -> Iterator[tuple[str, bool]]:
    """Names of the first model, and whether they are floating.

    Yields:
        One pair per tensor. Whatever is not floating (a counter, an index) is never averaged.
    """
    specs = getattr(problem.models[0], "specs", None)
    for name in problem.models[0]:
        dtype = specs[name].dtype if specs is not None else problem.models[0][name].dtype
        yield name, dtype.is_floating_point


def _computable(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.to(torch.float32)
