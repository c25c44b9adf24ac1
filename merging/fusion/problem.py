"""A fusion problem from what a caller gives: everything is checked before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from merging.errors import DataError, MergingError
from merging.fusion.base import FusionProblem, State
from merging.fusion.blocks import specs_of
from merging.rules import RuleCard


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
        raise MergingError(f"{card.title} takes {card.most_models} models at the most, not {count}")


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
        raise MergingError(f"weights are numbers, not {factors}")
    if card.weights == "none":
        if len(set(factors)) > 1:
            raise MergingError(
                f"{card.title} finds its weights by itself; leave `weights` out, or take a "
                "weighted mean"
            )
        return [1.0] * count
    if card.weights == "shares" and not sum(factors):
        raise MergingError("the weights add up to 0; give others")
    return factors


def _check_fits(first: State, other: State, title: str) -> None:
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
            raise MergingError(f"{name!r} is {list(a)} in model 1 and {list(b)} in {title}")
