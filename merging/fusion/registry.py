"""All fusion rules, and the one call that runs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from torch import Tensor

from merging.errors import MergingError, UnknownNameError
from merging.fusion import (
    average,
    dare,
    fisher,
    gradient_matching,
    model_stock,
    slerp,
    task_arithmetic,
    ties,
)
from merging.fusion.base import FusionProblem, OnProgress, Rule, State, floating_names
from merging.params import Params

RULES: Mapping[str, Rule] = {
    module.RULE.card.name: module.RULE
    for module in (
        average, slerp, task_arithmetic, ties, dare, model_stock, fisher, gradient_matching,
    )
}  # fmt: skip


def fuse(
    rule: str,
    *,
    models: Sequence[State],
    base: State | None = None,
    weights: Sequence[float] | None = None,
    fishers: Sequence[State] | None = None,
    base_fisher: State | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Params:
    """Fuse models into one.

    Args:
        rule: A name in `RULES`.
        models: State dicts of one architecture, in memory or opened files; left as they are.
        base: What they were fine-tuned from, for the rules that need it.
        weights: One number per model: shares for means, α for task vectors; by default 1 each.
        fishers: Diagonal curvature of every model, on the scale of the sum of its losses.
        base_fisher: The same of the base.
        options: Options of the rule, by name.
        seed: For rules that draw at random.
        on_progress: Called after every tensor; may raise `StoppedError`.

    Returns:
        A new state dict in the types of the first model. Tensors that are not floating are the
        first model's.

    Raises:
        UnknownNameError: If there is no such rule or option.
        MergingError: If models do not fit, or the rule lacks what it needs.
        StoppedError: If `on_progress` raises it.

    Example:
        >>> import torch
        >>> fuse("average", models=[{"w": torch.zeros(1)}, {"w": torch.ones(1)}], weights=[1, 3])
        {'w': tensor([0.7500])}
    """
    chosen = find_rule(rule)
    settings = _options(chosen, options)
    problem = _problem(models, base, weights, fishers, base_fisher, seed)
    fused: Params = {}
    names = list(floating_names(problem))
    for k, (name, floating) in enumerate(names):
        own: Tensor = models[0][name]
        value = chosen.fuse(problem, name, settings) if floating else own.clone()
        fused[name] = value.to(own.dtype)
        if on_progress is not None:
            on_progress(k + 1, len(names), name)
    return fused


def find_rule(name: str) -> Rule:
    """The rule of that name.

    Raises:
        UnknownNameError: If there is none.
    """
    if name not in RULES:
        raise UnknownNameError(f"unknown rule {name!r}; choose from {', '.join(RULES)}")
    return RULES[name]


def _options(rule: Rule, options: Mapping[str, Any] | None) -> Any:
    known = [f.name for f in fields(rule.options)]
    for name in options or {}:
        if name not in known:
            raise UnknownNameError(
                f"{rule.card.title} has no option {name!r}; it has {', '.join(known) or 'none'}"
            )
    return rule.options(**(options or {}))


def _problem(
    models: Sequence[State],
    base: State | None,
    weights: Sequence[float] | None,
    fishers: Sequence[State] | None,
    base_fisher: State | None,
    seed: int,
) -> FusionProblem:
    if not models:
        raise MergingError("there are no models to fuse; give at least one")
    factors = [1.0] * len(models) if weights is None else [float(w) for w in weights]
    if len(factors) != len(models):
        raise MergingError(f"{len(models)} models have {len(factors)} weights; give one each")
    if not sum(factors):
        raise MergingError("the weights add up to 0; give others")
    if fishers is not None and len(fishers) != len(models):
        raise MergingError(f"{len(models)} models have {len(fishers)} fishers; give one each")
    others = [(f"model {k + 2}", model) for k, model in enumerate(models[1:])]
    if base is not None:
        others.append(("the base", base))
    for title, other in others:
        _check_fits(models[0], other, title)
    return FusionProblem(models, base, factors, fishers, base_fisher, seed)


def _check_fits(first: State, other: State, title: str) -> None:
    differing = set(first) ^ set(other)
    if differing:
        raise MergingError(
            f"{title} and model 1 have different tensors ({sorted(differing)[0]!r} for one); "
            "models of one architecture can be fused"
        )
    shapes = [getattr(state, "specs", state) for state in (first, other)]
    for name in first:
        a, b = (tuple(shape[name].shape) for shape in shapes)
        if a != b:
            raise MergingError(f"{name!r} is {list(a)} in model 1 and {list(b)} in {title}")
