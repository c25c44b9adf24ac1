"""What a card says of a fusion rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RuleFamily = Literal[
    "mean", "task vectors", "curvature", "activations", "soup", "trajectory", "robust"
]


WeightKind = Literal["shares", "scales", "none"]


@dataclass(frozen=True)
class NoOptions:
    """For rules without any."""


@dataclass(frozen=True, kw_only=True)
class RuleCard:
    """What a rule is, for screens and documents.

    Attributes:
        name: What callers call it.
        title: What screens call it.
        family: What it goes by.
        formula: What it computes.
        assumes: What has to hold.
        fails: When it goes wrong.
        paper: Where it is from.
        options: Frozen dataclass of its options; every field has a default, and its metadata
            hold a label and a range or choices.
        weights: What the numbers per model are: shares of a mean, factors of task vectors, or
            nothing, where the rule finds its own.
        needs_base: Whether it needs a base model.
        needs_fishers: Whether it needs curvatures, one per model.
        needs_base_fisher: Whether it needs the base's curvature.
        needs_grams: Whether it needs Gram matrices of the layers' inputs, one set per model.
        needs_data: Whether it needs the architecture and validation examples.
        needs_sizes: Whether it needs how many examples each model was trained on.
        least_models: Models it takes at the least.
        most_models: Models it takes at most; 0 for any number.
        other_widths: Whether models may differ in widths; the result has the first one's.
        function: The public function that runs it: `fuse`, tensor by tensor, or one of its own,
            on whole networks.
    """

    name: str
    title: str
    family: RuleFamily
    formula: str
    assumes: str
    fails: str
    paper: str
    options: type = NoOptions
    weights: WeightKind = "shares"
    needs_base: bool = False
    needs_fishers: bool = False
    needs_base_fisher: bool = False
    needs_grams: bool = False
    needs_data: bool = False
    needs_sizes: bool = False
    least_models: int = 1
    most_models: int = 0
    other_widths: bool = False
    function: str = "fuse"

    @property
    def on_networks(self) -> bool:
        """Whether it works on whole networks, and not tensor by tensor."""
        return self.function != "fuse"
