"""What the matching methods are called and which options they have; data only, no torch.

The interface process builds its forms from this table. What a method does is in its own file in
`merging/matching`, which joins its card to a function.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from merging.schema.options import look_up, read_record

Similarity = Literal["inner product", "correlation"]
# How one order of units is found for many models.
CommonOrderKind = Literal["first", "merge many", "cycle consistent"]


@dataclass(frozen=True)
class WeightOptions:
    """Options of weight matching.

    Attributes:
        max_sweeps: Sweeps over all groups at most.
        restarts: Runs with other orders of the groups; the best is kept.
    """

    max_sweeps: int = field(
        default=100, metadata={"label": "Most sweeps over the layers", "min": 1, "max": 1000}
    )
    restarts: int = field(
        default=3, metadata={"label": "Runs, of which the best is kept", "min": 1, "max": 50}
    )


@dataclass(frozen=True)
class ActivationOptions:
    """Options of activation matching.

    Attributes:
        similarity: `"inner product"` is the paper's (uncentred); `"correlation"` does not mind
            the units' scales.
        examples: Examples of the matching set that are read, from its start; 0 for all.
    """

    similarity: Similarity = field(
        default="inner product",
        metadata={"label": "Similarity of units", "choices": ("inner product", "correlation")},
    )
    examples: int = field(
        default=0, metadata={"label": "Examples to read (0: all)", "min": 0, "max": 100_000}
    )


@dataclass(frozen=True)
class StraightThroughOptions:
    """Options of straight-through matching.

    Attributes:
        epochs: Passes over the matching set.
        batch_size: Examples per step.
        lr: Step size of SGD with momentum 0.9.
        max_sweeps: Sweeps at most in every projection.
    """

    epochs: int = field(
        default=5, metadata={"label": "Passes over the examples", "min": 1, "max": 500}
    )
    batch_size: int = field(
        default=500, metadata={"label": "Examples per step", "min": 1, "max": 10_000}
    )
    lr: float = field(default=0.01, metadata={"label": "Step size", "min": 1e-5, "max": 10.0})
    max_sweeps: int = field(
        default=100, metadata={"label": "Most sweeps per projection", "min": 1, "max": 1000}
    )


@dataclass(frozen=True)
class MethodCard:
    """A matching method, as menus show it.

    Attributes:
        name: What callers call it.
        title: What screens call it.
        about: What it does, in a sentence.
        reference: Where it is described.
        options: Frozen dataclass of its options; every field has a default, and its metadata
            hold a label and a range or choices.
        needs_data: Whether it needs examples.
    """

    name: str
    title: str
    about: str
    reference: str
    options: type
    needs_data: bool = False


METHOD_CARDS: Mapping[str, MethodCard] = MappingProxyType({
    card.name: card
    for card in (
        MethodCard(
            name="weight",
            title="Weight matching",
            about="Lines up the weights themselves; needs no data and takes about a second.",
            reference="Ainsworth et al. 2023, §3.2 (arXiv:2209.04836)",
            options=WeightOptions,
        ),
        MethodCard(
            name="activation",
            title="Activation matching",
            about="Pairs the units that do most alike on examples, layer by layer.",
            reference="Ainsworth et al. 2023, §3.1 (arXiv:2209.04836)",
            options=ActivationOptions,
            needs_data=True,
        ),
        MethodCard(
            name="straight_through",
            title="Straight-through matching",
            about="Starts at weight matching and follows the loss of the midpoint; slow, and best.",
            reference="Ainsworth et al. 2023, §3.3 (arXiv:2209.04836)",
            options=StraightThroughOptions,
            needs_data=True,
        ),
    )
})


def find_card(name: str) -> MethodCard:
    """Find the card of a method.

    Raises:
        UnknownNameError: If there is no such method.
    """
    return look_up(METHOD_CARDS, name, "matching method")


def read_options(card: MethodCard, options: Mapping[str, Any] | None) -> Any:
    """Read a method's options from a mapping; what is missing has its default.

    Args:
        card: The method.
        options: Values by option name.

    Returns:
        The options record.

    Raises:
        UnknownNameError: If the method has no such option, or an option's value is not among its
            choices or outside its range.
    """
    return read_record(card.title, card.options, options)
