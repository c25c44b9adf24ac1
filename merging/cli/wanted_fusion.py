"""What the command `fuse` is asked for, as a frozen record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from merging.cli.wanted import Named
from merging.results import requests
from merging.results.requests import Family, FusedStatistics, Moments
from merging.results.requests.curvature import Labels
from merging.results.requests.fusion import JudgedSplit
from merging.schema.cards.fusion.card import RuleCard
from merging.schema.cards.fusion.curvature import MOMENT_SCALE
from merging.schema.cards.fusion.table import find_card
from merging.schema.cards.matching import CommonOrderKind
from merging.schema.errors import MergingError


@dataclass(frozen=True)
class Fuse:
    """The models, the rule, and what is done with the result.

    Attributes:
        named: The models, their base and their data.
        rule: The rule's name.
        options: Options of the rule by name.
        weights: One number per model, one for all of them, or none.
        members: Numbers of the models to fuse, as they were written; None for all of them.
        no_base: Whether a bundled family's base is left out.
        order: How the models are lined up first, or `"none"`.
        tune: Whether the coefficient is chosen on validation examples.
        statistics: Whether running statistics are merged too, or reset.
        labels: Labels for curvature.
        fisher_from: Where curvature is taken from.
        moment_scale: What Adam's second moments are multiplied by.
        seed: The seed.
        split: Examples to judge by.
        out: The file or folder to write.
        noted: Whether a recipe of the result is wanted.
    """

    named: Named
    rule: str = "average"
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: tuple[float, ...] = ()
    members: str | None = None
    no_base: bool = False
    order: Literal["none"] | CommonOrderKind = "none"
    tune: bool = False
    statistics: FusedStatistics = "merged"
    labels: Labels = "sampled"
    fisher_from: Literal["examples", "optimizer"] = "examples"
    moment_scale: float = MOMENT_SCALE
    seed: int = 0
    split: JudgedSplit = "test"
    out: str | None = None
    noted: bool = False

    @property
    def card(self) -> RuleCard:
        """The rule's card."""
        return find_card(self.rule)

    @property
    def from_optimizer(self) -> bool:
        """Whether curvature is needed, and is the optimizer's."""
        return self.fisher_from == "optimizer" and self.card.needs_fishers

    @property
    def streams(self) -> bool:
        """Whether tensors can go from file to file one by one: nothing else has to be known."""
        card = self.card
        measured = card.needs_fishers and not self.from_optimizer
        needs = card.needs_data or measured or card.needs_grams or card.needs_sizes
        judged = self.named.data or self.tune or self.order != "none"
        changed = self.statistics != "merged" or self.members or self.no_base
        is_bundled, is_folder = len(self.named.models) == 1, (self.out or ".zip").endswith(".zip")
        if is_bundled or is_folder or judged or changed or needs:
            return False
        # What makes a result again computes it from requests.
        return not (card.on_networks or self.noted)

    def chosen(self, count: int) -> tuple[int, ...]:
        """Return the numbers of the models to fuse.

        Args:
            count: How many models there are.

        Returns:
            The numbers, each once.

        Raises:
            MergingError: If there are no such models.
        """
        if self.members is None:
            return tuple(range(count))
        numbers = self.members.split(",")
        if not all(text.isdecimal() and int(text) < count for text in numbers):
            raise MergingError(
                f"--members takes numbers from 0 to {count - 1} with commas between, such as 0,1, "
                f"not {self.members!r}"
            )
        return tuple(dict.fromkeys(int(text) for text in numbers))

    def weights_of(self, count: int) -> tuple[float, ...]:
        """Return one number per model; none if none were given."""
        return self.weights * count if len(self.weights) == 1 else self.weights

    def family(self, whole: Family) -> Family:
        """Return the models to fuse, with their base unless it is left out."""
        found = whole.without_base() if self.no_base else whole
        return found.of(self.chosen(len(whole.models)))

    def request(self, family: Family, moments: Moments | None) -> requests.FusionRequest:
        """Return the fusion of these models.

        Args:
            family: The models, as `family` gives them.
            moments: Adam's second moments, where curvature is to be from there.

        Returns:
            The request.
        """
        order = None
        if self.order != "none":
            order = requests.OrderRequest(family, self.order, self.seed)
        return requests.fusion(
            family,
            self.rule,
            self.options,
            weights=self.weights_of(len(family.models)),
            order=order,
            statistics=self.statistics,
            labels=self.labels,
            seed=self.seed,
            split=self.split,
            moments=moments,
        )
