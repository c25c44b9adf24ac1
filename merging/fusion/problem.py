"""A fusion problem from what a caller gives: everything is checked before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from merging.files.checkpoints.lazy_params import StateDict
from merging.files.data.batches import BatchesLike
from merging.fusion.blocks import Entries, entries, specs_of
from merging.schema.cards.fusion.card import RuleCard
from merging.schema.errors import DataError, MergingError
from merging.schema.running_statistics import is_running_statistic


def checked(
    card: RuleCard, problem: FusionProblem, weights: Sequence[float] | None
) -> FusionProblem:
    """Make sure that a rule has what it needs and that the models fit.

    Args:
        card: The rule.
        problem: What the caller gave; its weights do not count.
        weights: The caller's numbers per model, or None.

    Returns:
        The problem with its weights.

    Raises:
        MergingError: If there are too few or too many models, they do not fit each other, or
            something is missing or of the wrong number.
        DataError: If the rule needs examples and there are none.
    """
    count = len(problem.models)
    if not count:
        raise MergingError("there are no models to fuse; give at least one")
    _check_count(card, count)
    for what, given in (("fishers", problem.fishers), ("grams", problem.grams),
                        ("sizes", problem.sizes)):  # fmt: skip
        if given is not None and len(given) != count:
            raise MergingError(f"{count} models have {len(given)} {what}; give one each")
    _check_needs(card, problem)
    others = [(f"model {k + 2}", model) for k, model in enumerate(problem.models[1:])]
    if problem.base is not None:
        others.append(("the base", problem.base))
    for title, other in others:
        _check_fits(problem.models[0], other, title)
    return replace(problem, weights=_factors(card, count, weights))


def _check_count(card: RuleCard, count: int) -> None:
    if count < card.least_models:
        raise MergingError(f"{card.title} takes {card.least_models} models or more, not {count}")
    if card.most_models and count > card.most_models:
        raise MergingError(f"{card.title} takes {card.most_models} models at most, not {count}")


def _check_needs(card: RuleCard, problem: FusionProblem) -> None:
    if card.needs_base and problem.base is None:
        raise MergingError(f"{card.title} needs the base model (`base`) that all came from")
    if card.needs_fishers and problem.fishers is None:
        raise MergingError(f"{card.title} needs `fishers`, one per model: see diagonal_fisher")
    if card.needs_base_fisher and problem.base_fisher is None:
        raise MergingError(f"{card.title} needs `base_fisher`, the base model's curvature")
    if card.needs_grams and problem.grams is None:
        raise MergingError(f"{card.title} needs `grams`, one set per model: see gram_matrices")
    if card.needs_sizes:
        sizes = problem.sizes or ()
        if not sizes or not all(size > 0 and math.isfinite(size) for size in sizes):
            raise MergingError(
                f"{card.title} needs `sizes`, how many examples each model was trained on; "
                "give a positive number each"
            )
    if card.needs_data:
        if problem.model is None:
            raise MergingError(f"{card.title} needs the architecture (`model`) to try models")
        if problem.batches is None or not any(len(y) for _, y in problem.batches):
            raise DataError(f"{card.title} needs validation examples (`batches`); give some")


def _factors(card: RuleCard, count: int, weights: Sequence[float] | None) -> list[float]:
    factors = [1.0] * count if weights is None else [float(w) for w in weights]
    if len(factors) != count:
        raise MergingError(f"{count} models have {len(factors)} weights; give one each")
    if not all(math.isfinite(factor) for factor in factors):
        raise MergingError(f"weights must be finite numbers, not {factors}")
    if card.weights == "none":
        if len(set(factors)) > 1:
            raise MergingError(
                f"{card.title} finds its weights by itself; leave `weights` out, or use a "
                "weighted mean"
            )
        return [1.0] * count
    if card.weights == "shares" and not sum(factors):
        raise MergingError("the weights add up to 0; give others that do not")
    return factors


def _check_fits(first: StateDict, other: StateDict, title: str) -> None:
    differing = set(first) ^ set(other)
    if differing:
        raise MergingError(
            f"{title} and model 1 have different tensors ({sorted(differing)[0]!r} for one); "
            "models of one architecture can be fused"
        )
    shapes = [specs_of(state) for state in (first, other)]
    for name in first:
        a, b = (tuple(shape[name].shape) for shape in shapes)
        if a != b:
            raise MergingError(
                f"{name!r} is {list(a)} in model 1 and {list(b)} in {title}; models of one "
                "architecture can be fused"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class FusionProblem:
    """Models that are to become one.

    Attributes:
        models: State dicts with the same names and shapes; any mapping will do.
        base: What they were all fine-tuned from, or None.
        weights: One number per model; none before the problem is checked.
        fishers: For each model, the diagonal of its curvature on the scale of its loss's *sum*.
        base_fisher: The base model's curvature.
        grams: For each model, Gram matrices of what its layers read, by the weights' names.
        sizes: For each model, how many examples it was trained on.
        model: The architecture.
        batches: Validation examples.
        seed: For rules that draw at random.
        notes: What the rule found out on the way; plain values.
    """

    models: Sequence[StateDict]
    base: StateDict | None = None
    weights: Sequence[float] = ()
    fishers: Sequence[StateDict] | None = None
    base_fisher: StateDict | None = None
    grams: Sequence[StateDict] | None = None
    sizes: Sequence[float] | None = None
    model: nn.Module | None = None
    batches: BatchesLike | None = None
    seed: int = 0
    notes: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def statistics(self) -> frozenset[str]:
        """Floating tensors that are buffers: of the architecture, or by their names without one."""
        if self.model is not None:
            buffers = {n for n, _ in self.model.named_buffers(remove_duplicate=False)}
        else:
            buffers = {n for n in self.models[0] if is_running_statistic(n)}
        return frozenset(n for n in buffers if n in self.models[0] and self.is_floating(n))

    def is_floating(self, name: str) -> bool:
        """Return whether a tensor holds numbers that have a mean; files are not read for it."""
        dtype: torch.dtype = specs_of(self.models[0])[name].dtype
        return dtype.is_floating_point

    def tensors(self, name: str) -> list[Entries]:
        """Return one tensor of every model."""
        return [entries(model, name) for model in self.models]

    def base_tensor(self, name: str) -> Entries:
        """Return the base's tensor.

        Raises:
            MergingError: If there is no base.
        """
        if self.base is None:
            raise MergingError("this rule needs the base model that all were fine-tuned from")
        return entries(self.base, name)

    def curvatures(self, name: str) -> list[Entries]:
        """Return one tensor of every model's curvature.

        That none is negative is checked as it is read.

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
        """Return one tensor of the base's curvature.

        That none is negative is checked as it is read.

        Raises:
            MergingError: If there is none, or it has another shape than the models.
        """
        if self.base_fisher is None:
            raise MergingError("this rule needs `base_fisher`, the base model's curvature")
        shape = entries(self.models[0], name).shape
        return _curvature(self.base_fisher, name, "the base", shape)

    def reweighted(self, weights: Sequence[float], **notes: Any) -> FusionProblem:
        """Return the same models with other weights, and what is to be said of them."""
        return replace(self, weights=list(weights), notes={**self.notes, **notes})


def _curvature(fisher: StateDict, name: str, whose: str, shape: tuple[int, ...]) -> Entries:
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
