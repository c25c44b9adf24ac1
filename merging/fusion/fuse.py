"""`fuse`: all rules that work tensor by tensor, with one signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, get_args

from torch import nn

from merging.files.checkpoints.lazy_params import Params, StateDict
from merging.files.data.batches import BatchesLike
from merging.fusion.problem import FusionProblem, checked
from merging.fusion.rule import Buffers
from merging.fusion.rules.table import RULES
from merging.fusion.tensor_by_tensor import Walk
from merging.schema.cards.fusion.card import RuleCard
from merging.schema.cards.fusion.table import find_card, read_rule_options
from merging.schema.errors import MergingError, UnknownNameError
from merging.schema.progress import Progress, ignore

Taken = ParamSpec("Taken")
Given = TypeVar("Given")


@dataclass(frozen=True, eq=False)
class Fused:
    """A fused model, and what the rule found out on the way.

    Attributes:
        params: State dict.
        notes: Plain values by name, such as which models a soup kept; models count from 0.
    """

    params: Params
    notes: Mapping[str, Any]


def fuse_with_notes(
    rule: str,
    *,
    models: Sequence[StateDict],
    base: StateDict | None = None,
    weights: Sequence[float] | None = None,
    fishers: Sequence[StateDict] | None = None,
    base_fisher: StateDict | None = None,
    grams: Sequence[StateDict] | None = None,
    sizes: Sequence[float] | None = None,
    model: nn.Module | None = None,
    batches: BatchesLike | None = None,
    options: Mapping[str, Any] | None = None,
    buffers: Buffers = "mean",
    seed: int = 0,
    on_progress: Progress | None = None,
) -> Fused:
    """Fuse models into one, and say what the rule found out on the way.

    Args:
        rule: A name in `RULES`.
        models: State dicts of one architecture, in memory or opened files; left as they are. Of a
            run, its checkpoints in order.
        base: What they were fine-tuned from, for the rules that need it.
        weights: One number per model: shares for means, α for task vectors; by default 1 each.
        fishers: Diagonal curvature of every model, on the scale of the sum of its losses
            (`on_sum_scale`).
        base_fisher: The base model's diagonal curvature, on the same scale.
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
        A new state dict in the types of the first model (tensors that are not floating are those
        of the first model whose weight is not 0), and notes: `kept` of soups and Krum,
        `accuracies` and `accuracy` of greedy soups, `coefficients`, `temperature` and `losses` of
        learned ones, `scores` of Krum, `shares` of FedAvg, `factors` of task arithmetic, `solved`
        and `averaged` tensors of RegMean, `clamped_share` where tasks are removed.

    Raises:
        UnknownNameError: If there is no such rule, option or policy.
        MergingError: If models do not fit, the rule lacks what it needs, or it works on whole
            networks.
        DataError: If the rule needs examples and there are none.
        StoppedError: If `on_progress` raises it.

    Example:
        >>> import torch
        >>> models = [{"w": torch.tensor([x])} for x in (1.0, 1.1, 9.0)]
        >>> fuse_with_notes("krum", models=models).notes["kept"]
        [0]
    """
    given = FusionProblem(
        models=models,
        base=base,
        fishers=fishers,
        base_fisher=base_fisher,
        grams=grams,
        sizes=sizes,
        model=model,
        batches=batches,
        seed=seed,
    )
    walk = start(
        rule, given, weights=weights, options=options, buffers=buffers, on_progress=on_progress
    )
    return Fused({name: walk.tensor(name) for name in models[0]}, walk.notes)


def takes_what(
    other: Callable[Taken, Any],
) -> Callable[[Callable[..., Given]], Callable[Taken, Given]]:
    """Give a function the parameters of another, for type checkers and `help`.

    Args:
        other: The function whose parameters are spelled out.

    Returns:
        A decorator for a function of `*args` and `**kwargs` that hands them on to `other`.

    Example:
        >>> @takes_what(abs)
        ... def plus_one(*args, **kwargs):
        ...     return abs(*args, **kwargs) + 1
        >>> inspect.signature(plus_one)
        <Signature (x, /)>
    """

    def decorate(function: Callable[..., Given]) -> Callable[Taken, Given]:
        returned = inspect.signature(function).return_annotation
        signature = inspect.signature(other).replace(return_annotation=returned)
        function.__signature__ = signature  # type: ignore[attr-defined]
        return function

    return decorate


@takes_what(fuse_with_notes)
def fuse(*args: Any, **kwargs: Any) -> Params:
    """Fuse models into one.

    It takes what `fuse_with_notes` takes, where every argument is explained.

    Returns:
        A new state dict in the types of the first model. Tensors that are not floating are those
        of the first model whose weight is not 0.

    Example:
        >>> import torch
        >>> fuse("average", models=[{"w": torch.zeros(1)}, {"w": torch.ones(1)}], weights=[1, 3])
        {'w': tensor([0.7500])}
    """
    return fuse_with_notes(*args, **kwargs).params


def start(
    rule: str,
    given: FusionProblem,
    *,
    weights: Sequence[float] | None,
    options: Mapping[str, Any] | None,
    buffers: Buffers,
    on_progress: Progress | None,
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
        MergingError: If models do not fit, the rule lacks what it needs, or it works on whole
            networks.
        DataError: If the rule needs examples and there are none.
        StoppedError: If `on_progress` raises it.
    """
    card = find_tensor_card(rule)
    settings = read_rule_options(card, options)
    if buffers not in get_args(Buffers):
        raise UnknownNameError(
            f"unknown policy for buffers {buffers!r}; choose from {', '.join(get_args(Buffers))}"
        )
    problem = checked(card, given, weights)
    return Walk(RULES[card.name], problem, settings, buffers, on_progress or ignore)


def find_tensor_card(rule: str) -> RuleCard:
    """Return the card of a rule that works tensor by tensor.

    Raises:
        UnknownNameError: If there is no such rule.
        MergingError: If it works on whole networks.
    """
    card = find_card(rule)
    if card.on_networks:
        raise MergingError(
            f"{card.title} works on whole networks, and not tensor by tensor; call "
            f"merging.fusion.{card.function} with the architecture and examples, or take another "
            "rule"
        )
    return card
