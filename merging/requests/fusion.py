"""What can be asked of fused models: their scores, what they are compared with, coefficients."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from merging.entries import Entry
from merging.fusion_records import (
    CommonOrder,
    MergedScore,
    Mixtures,
    Scan,
)
from merging.requests.alignments import Download
from merging.requests.base import Request, added, canonical
from merging.requests.families import Family
from merging.rules import MOMENT_SCALE, RULE_CARDS, RuleCard, read_rule_options
from merging.ways import WAY_CARDS, find_way

Order = Literal["first", "merge many", "cycle consistent"]
Labels = Literal["sampled", "true"]
FusedStatistics = Literal["merged", "reset"]
JudgedSplit = Literal["validation", "test"]

ORDER_TITLES: Mapping[Order, str] = {
    "first": "Each to the first",
    "merge many": "MergeMany",
    "cycle consistent": "Cycle-consistent",
}
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
# The coefficient that a rule is tuned by, and the values that are tried.
KNOBS: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "task_arithmetic": ("weights", tuple(k / 10 for k in range(1, 11))),
    "dare": ("weights", tuple(k / 10 for k in range(1, 11))),
    "gradient_matching": ("weights", tuple(k / 10 for k in range(1, 11))),
    "remove_task": ("weights", tuple(k / 10 for k in range(1, 11))),
    "ties": ("scale", tuple(k / 5 for k in range(1, 11))),
    "wise_ft": ("t", tuple(k / 10 for k in range(1, 11))),
}
# Training examples that curvature and the inputs' Gram matrices are taken on, per task.
CURVATURE_EXAMPLES = 1000
# Training examples per task that gradient mismatch is taken on.
MISMATCH_EXAMPLES = 400
_MOST_MIXTURES = 300  # points of the grid of shares


@dataclass(frozen=True)
class CurvatureRequest(Request[dict[str, NDArray[np.float32]]]):
    """Diagonal Fisher of one model on one task's training examples, as a mean over them."""

    task: ClassVar[str] = "curvature"
    words: ClassVar[str] = "Curvature of a model"
    config: str
    model: str
    data: str
    data_fingerprint: str
    labels: Labels = "sampled"
    examples: int = CURVATURE_EXAMPLES
    seed: int = 0

    def decode(self, entries: list[Entry]) -> dict[str, NDArray[np.float32]]:
        """One array per tensor."""
        names = entries[0].meta["names"]
        return {name: entries[0].arrays[f"t{k}"] for k, name in enumerate(names)}


@dataclass(frozen=True)
class Moments:
    """Adam's second moments in the checkpoints, in place of curvature from examples.

    Attributes:
        models: Fingerprint of every model's.
        base: Fingerprint of the base's; empty where there is none.
        scale: What they are multiplied by: training examples times examples in a batch.
    """

    models: tuple[str, ...]
    base: str = ""
    scale: float = MOMENT_SCALE

    def of(self, members: tuple[int, ...]) -> Moments:
        """Those of some models only."""
        return replace(self, models=tuple(self.models[k] for k in members))

    def without_base(self) -> Moments:
        """The same without the base's."""
        return replace(self, base="")


@dataclass(frozen=True)
class OrderRequest(Request[CommonOrder]):
    """Permutations that bring the models of a family into one order of units."""

    task: ClassVar[str] = "order"
    family: Family
    kind: Order = "first"
    seed: int = 0

    @property
    def title(self) -> str:
        """What a person reads while it is computed."""
        return f"Lining up {len(self.family.models)} models ({ORDER_TITLES[self.kind].lower()})"

    def decode(self, entries: list[Entry]) -> CommonOrder:
        """The order."""
        arrays, meta = entries[0].arrays, dict(entries[0].meta)
        groups, models = meta.pop("groups"), range(meta.pop("models"))
        meta["objective"] = tuple(meta["objective"])
        return CommonOrder(
            tuple({g: arrays[f"m{m}p{k}"] for k, g in enumerate(groups)} for m in models), **meta
        )


@dataclass(frozen=True)
class FusionRequest(Request[MergedScore]):
    """A fused model, judged on all tasks.

    Attributes:
        family: The models; the base too, where the rule is to use it.
        rule: The rule's name.
        options: Canonical JSON of its options.
        weights: One number per model; empty for 1 each.
        order: How the models are lined up first, if at all.
        statistics: Whether running statistics are merged too, or taken anew on training examples.
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
        return find_way(self.rule).title

    def needs(self) -> tuple[Request[Any], ...]:
        """The common order, and the curvatures, where they are needed."""
        order = () if self.order is None else (self.order,)
        return (*order, *self.curvatures())

    def curvatures(self) -> tuple[CurvatureRequest, ...]:
        """The models' curvatures, and the base's last, as far as the rule needs them."""
        card, family = find_way(self.rule), self.family
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
                family.config, model, data.data, data.data_fingerprint, self.labels, seed=self.seed
            )
            for model, data in on
        )

    def decode(self, entries: list[Entry]) -> MergedScore:
        """The scores."""
        return MergedScore.from_meta(entries[0].meta["score"])


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
    chosen = read_rule_options(find_way(rule), options)
    return FusionRequest(family, rule, canonical(asdict(chosen)), **fields)


def tuning(wanted: FusionRequest) -> ScanRequest | None:
    """The scan over a rule's coefficient on validation examples; None for rules without one."""
    if wanted.rule not in KNOBS:
        return None
    knob, values = KNOBS[wanted.rule]
    return ScanRequest(replace(wanted, split="validation", weights=()), knob, values)


def on_split(scan: ScanRequest, split: JudgedSplit) -> ScanRequest:
    """The same scan on other examples."""
    return replace(scan, fusion=replace(scan.fusion, split=split))


def tuned(wanted: FusionRequest, scan: Scan) -> FusionRequest:
    """The same fusion with the coefficient that was best on validation examples."""
    knob, _ = KNOBS[wanted.rule]
    return with_knob(wanted, knob, scan.best)


def with_knob(wanted: FusionRequest, knob: str, value: float) -> FusionRequest:
    """The same fusion with one coefficient at another value.

    Args:
        wanted: The fusion.
        knob: `"weights"` for one number for all models, or the name of an option.
        value: The value.

    Returns:
        The fusion.

    Raises:
        UnknownNameError: If the rule has no such option, or the value is outside its range.
    """
    if knob == "weights":
        return replace(wanted, weights=(value,) * len(wanted.family.models))
    options = {**json.loads(wanted.options), knob: value}
    chosen = read_rule_options(find_way(wanted.rule), options)
    return replace(wanted, options=canonical(asdict(chosen)))


def lacking(card: RuleCard, family: Family, moments: Moments | None = None) -> str:
    """What a rule needs and a family has not, in words; empty if it can be used."""
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
    """Names of the rules that a family can be fused by."""
    cards = {**RULE_CARDS, **WAY_CARDS}
    return [name for name, card in cards.items() if not lacking(card, family, moments)]


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
        """The references, in the order of tables."""
        single = [name for name in ("base", "joint") if getattr(self.family, name)]
        models = [f"model {k}" for k in range(len(self.family.models))]
        return [*models, *single, "logits", "probabilities", "vote"]

    def parts(self) -> list[dict[str, Any]]:
        """One reference each."""
        return [{"reference": name} for name in self.names()]

    def decode(self, entries: list[Entry]) -> list[MergedScore]:
        """One score per reference."""
        return [MergedScore.from_meta(entry.meta["score"]) for entry in entries]


@dataclass(frozen=True)
class ScanRequest(Request[Scan]):
    """A rule with one of its coefficients at several values.

    Attributes:
        fusion: The rule, the models and all else.
        knob: `"weights"` for one number for all models, or the name of an option.
        values: The values.
    """

    task: ClassVar[str] = "scan"
    fusion: FusionRequest
    knob: str
    values: tuple[float, ...]

    @property
    def title(self) -> str:
        """What a person reads while it is computed."""
        return f"{self.fusion.title} at {len(self.values)} values"

    def needs(self) -> tuple[Request[Any], ...]:
        """What the rule needs."""
        return self.fusion.needs()

    def parts(self) -> list[dict[str, Any]]:
        """One value each."""
        return [{"value": value} for value in self.values]

    def decode(self, entries: list[Entry]) -> Scan:
        """The values that are there."""
        metas = sorted((entry.meta for entry in entries), key=lambda meta: meta["value"])
        scores = [MergedScore.from_meta(meta["score"]) for meta in metas]

        def table(name: str) -> NDArray[np.float64]:
            return np.array([[getattr(task, name) for task in score.tasks] for score in scores])

        return Scan(
            self.fusion.rule,
            np.array([meta["value"] for meta in metas]),
            table("loss"),
            table("accuracy"),
            table("accuracy_error"),
            np.array([score.mismatch for score in scores]),
            self.fusion.split,
        )


@dataclass(frozen=True)
class MixturesRequest(Request[Mixtures]):
    """Weighted means of all models over a grid of shares."""

    task: ClassVar[str] = "mixtures"
    words: ClassVar[str] = "Weighted means over a grid of shares"
    family: Family
    order: OrderRequest | None = None
    statistics: FusedStatistics = "merged"
    split: JudgedSplit = "validation"

    def needs(self) -> tuple[Request[Any], ...]:
        """The common order."""
        return () if self.order is None else (self.order,)

    def steps(self) -> int:
        """Steps of the grid: as fine as the number of points allows."""
        models, steps = len(self.family.models), 1
        while steps < 20 and _points(models, steps + 1) <= _MOST_MIXTURES:
            steps += 1
        return steps

    def decode(self, entries: list[Entry]) -> Mixtures:
        """The grid."""
        arrays, meta = entries[0].arrays, entries[0].meta
        return Mixtures(
            meta["steps"], arrays["shares"], arrays["loss"], arrays["accuracy"], meta["split"]
        )


def _points(models: int, steps: int) -> int:
    """Points of the simplex of `models` corners whose shares are multiples of `1 / steps`."""
    points = 1
    for k in range(1, models):
        points = points * (steps + k) // k
    return points


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
        """What the rule needs."""
        return self.fusion.needs()

    def decode(self, entries: list[Entry]) -> Download:
        """The file."""
        arrays, meta = entries[0].arrays, entries[0].meta
        return Download(meta["name"], arrays["data"].tobytes(), tuple(meta["notes"]))
