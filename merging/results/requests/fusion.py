"""What can be asked of fused models: their scores, what they are compared with, coefficients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from merging.results.compute.entry import Entry
from merging.results.requests.alignment import Download, download_entry, read_download
from merging.results.requests.common_order import OrderRequest
from merging.results.requests.curvature import CurvatureRequest, Moments
from merging.results.requests.family import Family
from merging.results.requests.request import Request, added, canonical
from merging.schema.cards.fusion.card import RuleCard
from merging.schema.cards.fusion.curvature import Labels
from merging.schema.cards.fusion.table import RULE_CARDS, find_card, read_rule_options
from merging.schema.records.scores import MergedScore

FusedStatistics = Literal["merged", "reset"]
JudgedSplit = Literal["validation", "test"]

REFERENCE_TITLES = {
    "base": "The base by itself",
    "joint": "Trained on all tasks",
    "logits": "Ensemble, mean of outputs",
    "probabilities": "Ensemble, mean probability",
    "vote": "Ensemble, majority vote",
}
# The rules that are compared first, by the kind of a family.
FIRST_RULES: Mapping[str, tuple[str, ...]] = {
    "tasks": (
        "average", "task_arithmetic", "ties", "dare", "fisher", "regmean", "gradient_matching",
    ),
    "fine-tunes": ("uniform_soup", "greedy_soup", "learned_soup", "model_stock", "wise_ft"),
    "run": ("swa", "ema", "lawa"),
    "seeds": ("average", "fisher", "regmean", "zipit", "transport", "distillation"),
}  # fmt: skip
# Factor of every task vector until somebody chooses another.
FIRST_FACTOR = 0.3
# Training examples per task that gradient mismatch is taken on.
MISMATCH_EXAMPLES = 400


def score_entry(found: MergedScore) -> Entry:
    """Return scores as they are stored."""
    return Entry({}, {"score": asdict(found)})


def read_score(entry: Entry) -> MergedScore:
    """Return the scores that `score_entry` wrote."""
    return MergedScore.from_meta(entry.meta["score"])


@dataclass(frozen=True)
class FusionRequest(Request[MergedScore]):
    """A fused model, judged on all tasks.

    Attributes:
        family: The models; the base too, where the rule is to use it.
        rule: The rule's name.
        options: Canonical JSON of its options.
        weights: One number per model; empty for 1 each.
        order: How the models are lined up first, if at all.
        statistics: Whether running statistics are merged too, or re-estimated on training examples.
        labels: Labels for curvature: drawn from the model, or the data's.
        seed: For rules that draw at random.
        split: Examples to judge by.
        moments: Where curvature comes from, if not from examples.
    """

    task: ClassVar[str] = "fusion"
    family: Family
    rule: str
    options: str = "{}"
    weights: tuple[float, ...] = ()
    order: OrderRequest | None = None
    statistics: FusedStatistics = "merged"
    labels: Labels = "sampled"
    seed: int = 0
    split: JudgedSplit = "test"
    moments: Moments | None = field(default=None, metadata={"added": True})

    @property
    def title(self) -> str:
        """What a person reads while it is computed."""
        return find_card(self.rule).title

    def needs(self) -> tuple[Request[Any], ...]:
        """Return the common order, and the curvatures, where they are needed."""
        order = () if self.order is None else (self.order,)
        return (*order, *self.curvatures())

    def curvatures(self) -> tuple[CurvatureRequest, ...]:
        """Return the models' curvatures, and the base's last, as far as the rule needs them."""
        card, family = find_card(self.rule), self.family
        if self.moments is not None or not (card.needs_fishers and family.tasks):
            return ()
        # A model whose task is not known is looked at on the first.
        on = [
            (m, family.tasks[max(0, t)])
            for m, t in zip(family.models, family.trained_on, strict=True)
        ]
        if card.needs_base_fisher and family.base:
            on.append((family.base, family.base_on or family.tasks[0]))
        return tuple(
            CurvatureRequest(
                config=family.config,
                model=model,
                data=data.data,
                data_fingerprint=data.data_fingerprint,
                labels=self.labels,
                seed=self.seed,
            )
            for model, data in on
        )

    def encode(self, found: MergedScore) -> Entry:
        """Return the scores as they are stored."""
        return score_entry(found)

    def decode(self, entry: Entry) -> MergedScore:
        """Return the scores."""
        return read_score(entry)


def fusion(
    family: Family, rule: str, options: Mapping[str, Any] | None = None, **fields: Any
) -> FusionRequest:
    """Ask for a fused model; options that are left out have their defaults.

    Args:
        family: The models.
        rule: The rule's name.
        options: Its options by name.
        fields: Further fields of the request.

    Returns:
        The request; equal options give equal requests.

    Raises:
        UnknownNameError: If there is no such rule or option.
    """
    chosen = read_rule_options(find_card(rule), options)
    return FusionRequest(family, rule, canonical(asdict(chosen)), **fields)


def lacking(card: RuleCard, family: Family, moments: Moments | None = None) -> str:
    """Return what a rule needs and a family lacks, in words; empty if it can be used."""
    count = len(family.models)
    if family.configs and not card.other_widths:
        return "needs models of one width"
    if card.needs_base and not family.base:
        return "needs a base model"
    if count < card.least_models:
        return f"needs at least {card.least_models} models"
    if card.most_models and count > card.most_models:
        return f"takes {card.most_models} models"
    if card.needs_base_fisher and moments is not None and not moments.base:
        return "needs Adam's second moment of the base"
    measured = card.needs_fishers and moments is None
    needs_examples = measured or card.needs_grams or card.needs_data or card.needs_sizes
    return "needs examples" if needs_examples and not family.tasks else ""


def usable_rules(family: Family, moments: Moments | None = None) -> list[str]:
    """Return the names of the rules that a family can be fused by."""
    return [name for name, card in RULE_CARDS.items() if not lacking(card, family, moments)]


@dataclass(frozen=True)
class ReferencesRequest(Request[list[MergedScore]]):
    """What fused models are compared with.

    Every model by itself, the base and the joint model where there are such, and ensembles.
    """

    task: ClassVar[str] = "references"
    words: ClassVar[str] = "The models by themselves, and together as ensembles"
    family: Family
    split: JudgedSplit = "test"

    def names(self) -> list[str]:
        """Return the references, in the order of tables."""
        single = [name for name in ("base", "joint") if getattr(self.family, name)]
        models = [f"model {k}" for k in range(len(self.family.models))]
        return [*models, *single, "logits", "probabilities", "vote"]

    def parts(self) -> list[dict[str, Any]]:
        """Return one piece for each reference."""
        return [{"reference": name} for name in self.names()]

    def encode(self, found: MergedScore) -> Entry:
        """Return the scores of one reference as they are stored."""
        return score_entry(found)

    def decode(self, entry: Entry) -> MergedScore:
        """Return the scores of one reference."""
        return read_score(entry)

    def join(self, found: list[MergedScore]) -> list[MergedScore]:
        """Return one score per reference."""
        return found


@dataclass(frozen=True)
class FusionExportRequest(Request[Download]):
    """A fused model as a file: safetensors, or a zip file with its model card and recipe.

    It is written in the types of the first model's file.

    Attributes:
        fusion: The fusion.
        what: Weights alone, or with card and recipe.
        prefix: What is put before all names: what was cut off when the first file was read.
    """

    task: ClassVar[str] = "fusion export"
    words: ClassVar[str] = "Writing the merged model"
    fusion: FusionRequest
    what: Literal["weights", "folder"] = "weights"
    prefix: str = added("")

    def needs(self) -> tuple[Request[Any], ...]:
        """Return what the rule needs."""
        return self.fusion.needs()

    def encode(self, found: Download) -> Entry:
        """Return the file as it is stored."""
        return download_entry(found)

    def decode(self, entry: Entry) -> Download:
        """Return the file."""
        return read_download(entry)
