"""All fusion rules, and the calls that run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from torch import nn

from merging.files.checkpoints.lazy_params import Params
from merging.fusion.problem import Examples, FusionProblem, OnProgress, State, checked
from merging.fusion.rule import Buffers
from merging.fusion.rules.table import RULES
from merging.fusion.tensor_by_tensor import Walk
from merging.schema.cards.fusion.table import find_rule_card, read_rule_options
from merging.schema.errors import UnknownNameError


@dataclass(frozen=True, eq=False)
class Fused:
    """A fused model, and what the rule found out on the way.

    Attributes:
        params: State dict.
        notes: Plain values by name, such as which models a soup kept; models count from 0.
    """

    params: Params
    notes: Mapping[str, Any]


def fuse(
    rule: str,
    *,
    models: Sequence[State],
    base: State | None = None,
    weights: Sequence[float] | None = None,
    fishers: Sequence[State] | None = None,
    base_fisher: State | None = None,
    grams: Sequence[State] | None = None,
    sizes: Sequence[float] | None = None,
    model: nn.Module | None = None,
    batches: Examples | None = None,
    options: Mapping[str, Any] | None = None,
    buffers: Buffers = "mean",
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Params:
    """Fuse models into one.

    Args:
        rule: A name in `RULES`.
        models: State dicts of one architecture, in memory or opened files; left as they are. Of a
            run, its checkpoints in order.
        base: What they were fine-tuned from, for the rules that need it.
        weights: One number per model: shares for means, α for task vectors; by default 1 each.
        fishers: Diagonal curvature of every model, on the scale of the sum of its losses
            (`on_sum_scale`).
        base_fisher: The same of the base.
        grams: `gram_matrices` of every model, for RegMean.
        sizes: How many examples each model was trained on, for FedAvg.
        model: The architecture, for the soups; where it is given, it says what is a buffer.
        batches: Validation examples, for the soups.
        options: Options of the rule, by name.
        buffers: What becomes of running statistics: their `"mean"`, by the rule's weights where
            these are shares; what the `"rule"` makes of them; or the `"first"` model's. None is
            right for other weights: re-estimate them with `repair(…, kind="reset")`.
        seed: For rules that draw at random.
        on_progress: Called with `(done, total, note)`, after every tensor at the least; may raise
            `StoppedError`.

    Returns:
        A new state dict in the types of the first model. Tensors that are not floating are those
        of the first model whose weight is not 0.

    Raises:
        UnknownNameError: If there is no such rule, option or policy.
        MergingError: If models do not fit, or the rule lacks what it needs.
        DataError: If the rule needs examples and there are none.
        StoppedError: If `on_progress` raises it.

    Example:
        >>> import torch
        >>> fuse("average", models=[{"w": torch.zeros(1)}, {"w": torch.ones(1)}], weights=[1, 3])
        {'w': tensor([0.7500])}
    """
    given = FusionProblem(
        models, base, (), fishers, base_fisher, grams, sizes, model, batches, seed
    )
    return _fused(rule, given, weights, options, buffers, on_progress).params


def fuse_with_notes(
    rule: str,
    *,
    models: Sequence[State],
    base: State | None = None,
    weights: Sequence[float] | None = None,
    fishers: Sequence[State] | None = None,
    base_fisher: State | None = None,
    grams: Sequence[State] | None = None,
    sizes: Sequence[float] | None = None,
    model: nn.Module | None = None,
    batches: Examples | None = None,
    options: Mapping[str, Any] | None = None,
    buffers: Buffers = "mean",
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Fused:
    """Fuse models into one, and say what the rule found out on the way.

    Args:
        rule: As in `fuse`, and so are the others.
        models: State dicts of one architecture.
        base: What they were fine-tuned from.
        weights: One number per model.
        fishers: Diagonal curvature of every model.
        base_fisher: The same of the base.
        grams: Gram matrices of every model.
        sizes: How many examples each model was trained on.
        model: The architecture.
        batches: Validation examples.
        options: Options of the rule, by name.
        buffers: What becomes of running statistics.
        seed: For rules that draw at random.
        on_progress: Called with `(done, total, note)`.

    Returns:
        The state dict, and notes: `kept` of soups and Krum, `accuracies` and `accuracy` of greedy
        soups, `coefficients`, `temperature` and `losses` of learned ones, `scores` of Krum,
        `shares` of FedAvg, `factors` of task arithmetic, `solved` and `averaged` tensors of
        RegMean, `clamped_share` where tasks are removed.

    Raises:
        UnknownNameError: If there is no such rule, option or policy.
        MergingError: If models do not fit, or the rule lacks what it needs.
        DataError: If the rule needs examples and there are none.
        StoppedError: If `on_progress` raises it.

    Example:
        >>> import torch
        >>> models = [{"w": torch.tensor([x])} for x in (1.0, 1.1, 9.0)]
        >>> fuse_with_notes("krum", models=models).notes["kept"]
        [0]
    """
    given = FusionProblem(
        models, base, (), fishers, base_fisher, grams, sizes, model, batches, seed
    )
    return _fused(rule, given, weights, options, buffers, on_progress)


def start(
    rule: str,
    given: FusionProblem,
    weights: Sequence[float] | None,
    options: Mapping[str, Any] | None,
    buffers: Buffers,
    on_progress: OnProgress | None,
) -> Walk:
    """Check a problem and prepare its rule, so that tensors can be asked for one by one.

    Args:
        rule: A name in `RULES`.
        given: What the caller gave.
        weights: The caller's numbers per model, or None.
        options: Options of the rule, by name.
        buffers: What becomes of running statistics.
        on_progress: Called with `(done, total, note)`, also after every tensor.

    Returns:
        The walk.

    Raises:
        UnknownNameError: If there is no such rule, option or policy.
        MergingError: If models do not fit, or the rule lacks what it needs.
        DataError: If the rule needs examples and there are none.
        StoppedError: If `on_progress` raises it.
    """
    card = find_rule_card(rule)
    settings = read_rule_options(card, options)
    if buffers not in get_args(Buffers):
        raise UnknownNameError(
            f"unknown policy for buffers {buffers!r}; choose from {', '.join(get_args(Buffers))}"
        )
    problem = checked(card, given, weights)
    return Walk(RULES[card.name], problem, settings, buffers, on_progress or _ignore)


def _fused(
    rule: str,
    given: FusionProblem,
    weights: Sequence[float] | None,
    options: Mapping[str, Any] | None,
    buffers: Buffers,
    on_progress: OnProgress | None,
) -> Fused:
    walk = start(rule, given, weights, options, buffers, on_progress)
    return Fused({name: walk.tensor(name) for name in given.models[0]}, walk.notes)


def _ignore(*_: object) -> None:
    """A callback for nobody."""
