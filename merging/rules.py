"""What the fusion rules are called, what they need and which options they have; no torch.

The interface process builds its forms from this table. What a rule does is in its own file in
`merging/fusion`, which joins its card to a function. θ₀ is the base, θₜ model t, wₜ and αₜ the
numbers per model: shares of a mean, or factors of task vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from merging.options import look_up, read_record

Family = Literal["mean", "task vectors", "curvature", "activations", "soup", "trajectory", "robust"]
Weights = Literal["shares", "scales", "none"]

# What Adam's second moments are multiplied by, unless a caller knows better: training examples
# times examples in a batch, 10,000 × 100. Only δ and what counts as flat are compared with it.
MOMENT_SCALE = 1e6

_SCALE: dict[str, Any] = {"label": "Factor of the merged step", "min": -10.0, "max": 10.0}
_DENSITY: dict[str, Any] = {"label": "Share of entries kept", "min": 1e-6, "max": 1.0}
_TOTAL: dict[str, Any] = {"label": "What agrees is", "choices": ("averaged", "added")}
_CURVATURES = ("measured", "left out")
_DELTA: dict[str, Any] = {"label": "Precision of the prior (δ)", "min": 0.0, "max": 1e12}


@dataclass(frozen=True)
class NoOptions:
    """For rules without any."""


@dataclass(frozen=True)
class WiseFtOptions:
    """Options of WiSE-FT.

    Attributes:
        t: How far from the base: 0 is the base, 1 the mean of the models.
    """

    t: float = field(default=0.5, metadata={"label": "Way from the base", "min": 0.0, "max": 1.0})


@dataclass(frozen=True)
class TaskArithmeticOptions:
    """Options of task arithmetic.

    Attributes:
        mode: `"add"` adds all task vectors; `"negate"` takes them away; `"analogy"` takes three
            models and adds the third's task vector and what leads from the first to the second.
        scale: Factor of what is added or taken away.
    """

    mode: str = field(
        default="add",
        metadata={"label": "Task vectors are", "choices": ("add", "negate", "analogy")},
    )
    scale: float = field(default=1.0, metadata=_SCALE)


@dataclass(frozen=True)
class TiesOptions:
    """Options of TIES.

    Attributes:
        density: Share of each task vector's entries that is kept, the largest of each tensor.
        scale: Factor of the merged task vector.
        total: Whether entries that agree are averaged, as in the paper, or added.
    """

    density: float = field(default=0.2, metadata=_DENSITY)
    scale: float = field(default=1.0, metadata=_SCALE)
    total: str = field(default="averaged", metadata=_TOTAL)


@dataclass(frozen=True)
class DareOptions:
    """Options of DARE.

    Attributes:
        drop: Share of each task vector's entries that is dropped.
        then: What merges the rest: their sum, or TIES' election of signs. Its trimming is left
            out: dropping has already left fewer entries than trimming would.
        total: With TIES, whether entries that agree are averaged or added.
    """

    drop: float = field(
        default=0.9, metadata={"label": "Share of entries dropped", "min": 0.0, "max": 0.999}
    )
    then: str = field(
        default="task arithmetic",
        metadata={"label": "What merges the rest", "choices": ("task arithmetic", "TIES")},
    )
    total: str = field(default="averaged", metadata=_TOTAL)


@dataclass(frozen=True)
class FisherOptions:
    """Options of Fisher averaging.

    Attributes:
        floor: Curvature below which an entry counts as flat; entries that are flat in all models
            get their mean.
    """

    floor: float = field(
        default=1e-12, metadata={"label": "Curvature that counts as flat", "min": 0.0, "max": 1.0}
    )


@dataclass(frozen=True)
class GradientMatchingOptions:
    """Options of gradient matching, and switches that turn its formula into other rules.

    Attributes:
        delta: The prior's precision, added to the base's curvature.
        h0: Whether the base's curvature is measured, or left out as if it were 0: Fisher averaging.
        ht: Whether the tasks' curvatures are measured, or left out: task arithmetic; with α = 1 / T
            the mean.
    """

    delta: float = field(default=1e-12, metadata=_DELTA)
    h0: str = field(
        default="measured", metadata={"label": "Curvature of the base, H₀", "choices": _CURVATURES}
    )
    ht: str = field(
        default="measured", metadata={"label": "Curvature of the tasks, Hₜ", "choices": _CURVATURES}
    )


@dataclass(frozen=True)
class RemoveTaskOptions:
    """Options of removing tasks.

    Attributes:
        delta: The prior's precision, added to the base's curvature.
        least: Curvature of what remains that is clamped to, where less than it is left.
    """

    delta: float = field(default=1e-12, metadata=_DELTA)
    least: float = field(
        default=1e-12,
        metadata={"label": "Least curvature of what remains", "min": 1e-30, "max": 1e12},
    )


@dataclass(frozen=True)
class RegMeanOptions:
    """Options of RegMean.

    Attributes:
        off_diagonal: Factor of the Gram matrices' entries off the diagonal.
    """

    off_diagonal: float = field(
        default=0.9, metadata={"label": "Factor off the diagonal", "min": 0.0, "max": 1.0}
    )


@dataclass(frozen=True)
class LearnedSoupOptions:
    """Options of the learned soup.

    Attributes:
        epochs: Passes over the validation examples.
        lr: Step size of Adam.
    """

    epochs: int = field(
        default=10, metadata={"label": "Passes over the examples", "min": 1, "max": 500}
    )
    lr: float = field(default=0.05, metadata={"label": "Step size", "min": 1e-5, "max": 10.0})


@dataclass(frozen=True)
class SwaOptions:
    """Options of stochastic weight averaging.

    Attributes:
        skip: Checkpoints at the start that are left out.
    """

    skip: int = field(
        default=0, metadata={"label": "Checkpoints left out at the start", "min": 0, "max": 10_000}
    )


@dataclass(frozen=True)
class EmaOptions:
    """Options of the exponential moving average.

    Attributes:
        beta: What is kept of the mean at every checkpoint.
    """

    beta: float = field(
        default=0.9,
        metadata={"label": "What is kept per checkpoint (β)", "min": 0.0, "max": 0.9999},
    )


@dataclass(frozen=True)
class LawaOptions:
    """Options of latest weight averaging.

    Attributes:
        last: Checkpoints at the end that are averaged; all, if there are fewer.
    """

    last: int = field(
        default=5, metadata={"label": "Last checkpoints averaged", "min": 1, "max": 10_000}
    )


@dataclass(frozen=True)
class TrimmedMeanOptions:
    """Options of the trimmed mean.

    Attributes:
        trim: Share of the models that is left out at each end, entry by entry; rounded down.
    """

    trim: float = field(
        default=0.2, metadata={"label": "Share left out at each end", "min": 0.0, "max": 0.499}
    )


@dataclass(frozen=True)
class KrumOptions:
    """Options of Krum.

    Attributes:
        faulty: Models that may be anything; -1 for as many as the rule withstands, (n - 3) / 2.
        kept: Models that are averaged, best first: 1 is Krum, more is Multi-Krum.
    """

    faulty: int = field(
        default=-1,
        metadata={
            "label": "Models that may be bad (-1: as many as possible)",
            "min": -1,
            "max": 99,
        },
    )
    kept: int = field(default=1, metadata={"label": "Models averaged", "min": 1, "max": 100})


@dataclass(frozen=True)
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
        most_models: Models it takes at the most; 0 for any number.
        other_widths: Whether models may differ in widths; the result has the first one's.
    """

    name: str
    title: str
    family: Family
    formula: str
    assumes: str
    fails: str
    paper: str
    options: type = NoOptions
    weights: Weights = "shares"
    needs_base: bool = False
    needs_fishers: bool = False
    needs_base_fisher: bool = False
    needs_grams: bool = False
    needs_data: bool = False
    needs_sizes: bool = False
    least_models: int = 1
    most_models: int = 0
    other_widths: bool = False


RULE_CARDS: Mapping[str, RuleCard] = MappingProxyType({
    card.name: card
    for card in (
        RuleCard(
            "average",
            "Weighted mean",
            "mean",
            "θ = Σ wₜ θₜ / Σ wₜ",
            "The models lie in one basin: fine-tuned from one base, or aligned.",
            "Models in different basins; more different tasks than the weights have room for.",
            "Wortsman et al. 2022 (uniform soup), arXiv 2203.05482",
        ),
        RuleCard(
            "slerp",
            "SLERP",
            "mean",
            "θ = sin((1−λ)Ω)/sin Ω · θ₁ + sin(λΩ)/sin Ω · θ₂, Ω the angle between the tensors",
            "Two models in one basin whose norms matter.",
            "More than two models; tensors that point in opposite ways (the line is taken).",
            "Shoemake 1985; used for weights since Git Re-Basin's code",
            least_models=2,
            most_models=2,
        ),
        RuleCard(
            "wise_ft",
            "WiSE-FT",
            "mean",
            "θ = (1 − t) θ₀ + t · Σ wₜ θₜ / Σ wₜ",
            "Fine-tuning stays in the base's basin, and the base knows what it forgot.",
            "A base that is no good by itself: a part of it is then only noise.",
            "Wortsman et al. 2022, arXiv 2109.01903",
            WiseFtOptions,
            needs_base=True,
        ),
        RuleCard(
            "fedavg",
            "FedAvg",
            "mean",
            "θ = Σ (nₜ / n) θₜ, nₜ the examples that model t was trained on",
            "Clients that started together and took few steps on data of one kind.",
            "Clients whose data differ much, and a client that lies.",
            "McMahan et al. 2017, arXiv 1602.05629",
            weights="none",
            needs_sizes=True,
        ),
        RuleCard(
            "task_arithmetic",
            "Task arithmetic",
            "task vectors",
            "θ = θ₀ + λ Σ αₜ τₜ with τₜ = θₜ − θ₀; negation θ₀ − λ Σ αₜ τₜ; "
            "analogy θ₀ + λ (τ₃ + τ₂ − τ₁)",
            "Small steps from one base; α tuned on validation data (often about 0.3).",
            "Many tasks with α = 1: the sum overshoots.",
            "Ilharco et al. 2023, arXiv 2212.04089",
            TaskArithmeticOptions,
            weights="scales",
            needs_base=True,
        ),
        RuleCard(
            "ties",
            "TIES",
            "task vectors",
            "θ = θ₀ + λ · mean over {t : sign agrees} of trim(θₜ − θ₀)",
            "Most of what fine-tuning changed is redundant; signs that conflict are noise.",
            "Few tasks, or large changes everywhere.",
            "Yadav et al. 2023, arXiv 2306.01708",
            TiesOptions,
            needs_base=True,
        ),
        RuleCard(
            "dare",
            "DARE",
            "task vectors",
            "θ = θ₀ + Σ αₜ mₜ ⊙ (θₜ − θ₀) / (1 − p), mₜ ~ Bernoulli(1 − p); "
            "or TIES of the dropped and rescaled task vectors",
            "Task vectors are small and redundant; expectation is task arithmetic's.",
            "Large task vectors: dropping adds noise.",
            "Yu et al. 2024, arXiv 2311.03099",
            DareOptions,
            weights="scales",
            needs_base=True,
        ),
        RuleCard(
            "model_stock",
            "Model Stock",
            "task vectors",
            "θ = t · mean + (1 − t) · θ₀, t = K cos φ / ((K − 1) cos φ + 1) per tensor",
            "Models fine-tuned on one task with different seeds: a shell around a centre.",
            "Different tasks, whose angles say nothing of noise.",
            "Jang et al. 2024, arXiv 2403.19522",
            weights="none",
            needs_base=True,
            least_models=2,
        ),
        RuleCard(
            "fisher",
            "Fisher averaging",
            "curvature",
            "θ = Σ αₜ Fₜ θₜ / Σ αₜ Fₜ",
            "Posteriors are Gaussian with diagonal precision, and independent of a base.",
            "Fine-tuned models, whose dependence on the base it ignores.",
            "Matena and Raffel 2022, arXiv 2111.09832",
            FisherOptions,
            needs_fishers=True,
        ),
        RuleCard(
            "fisher_unit",
            "Fisher averaging, αₜ = 1",
            "curvature",
            "θ = Σ Fₜ θₜ / Σ Fₜ",
            "As Fisher averaging; no factor is tuned, and the curvatures' sizes alone count.",
            "As Fisher averaging; and tasks with much data drown the others.",
            "FA1 in Table 1 of Daheim et al. 2024, arXiv 2310.12808",
            FisherOptions,
            weights="none",
            needs_fishers=True,
        ),
        RuleCard(
            "gradient_matching",
            "Gradient matching",
            "curvature",
            "θ = θ₀ + Σ αₜ (H₀ + Hₜ) / (H₀ + Σ αₛ Hₛ) · (θₜ − θ₀)",
            "Losses are near quadratic around the models; curvature is taken on training data.",
            "Large steps from the base, over which curvature changes.",
            "Daheim et al. 2024, Eq. 12, arXiv 2310.12808",
            GradientMatchingOptions,
            weights="scales",
            needs_base=True,
            needs_fishers=True,
            needs_base_fisher=True,
        ),
        RuleCard(
            "remove_task",
            "Removing tasks",
            "curvature",
            "θ = θ₀ − Σ αₜ (H₀ + Hₜ) / (H₀ − Σ αₛ Hₛ) · (θₜ − θ₀)",
            "The base was trained on the task's data too, and H₀ counts them.",
            "H₀ − Σ αₜ Hₜ near 0 or below, where it is clamped: watch the clamped share.",
            "Daheim et al. 2024, Eq. 13–14, arXiv 2310.12808",
            RemoveTaskOptions,
            weights="scales",
            needs_base=True,
            needs_fishers=True,
            needs_base_fisher=True,
        ),
        RuleCard(
            "regmean",
            "RegMean",
            "activations",
            "W = (Σ wₜ Gₜ)⁻¹ Σ wₜ Gₜ Wₜ with Gₜ the Gram matrix of the layer's inputs",
            "Each layer should answer on each task's inputs as that task's model does.",
            "Deep networks: inputs of a merged layer are not those the Grams were taken on.",
            "Jin et al. 2023, arXiv 2212.09849",
            RegMeanOptions,
            needs_grams=True,
        ),
        RuleCard(
            "uniform_soup",
            "Uniform soup",
            "soup",
            "θ = Σ θₜ / T",
            "All models are good, and fine-tuned from one base on one task.",
            "One bad model spoils the mean.",
            "Wortsman et al. 2022, arXiv 2203.05482",
            weights="none",
        ),
        RuleCard(
            "greedy_soup",
            "Greedy soup",
            "soup",
            "best first: a model joins the mean if validation accuracy strictly rises",
            "Validation examples that nothing else was chosen on.",
            "Few validation examples, on which accuracy rises by chance.",
            "Wortsman et al. 2022, arXiv 2203.05482",
            weights="none",
            needs_data=True,
        ),
        RuleCard(
            "learned_soup",
            "Learned soup",
            "soup",
            "θ = Σ βₜ θₜ with β, τ = argmin Σ CE(τ f(x; Σ βₜ θₜ), y), β a softmax",
            "Validation examples that nothing else was chosen on; all models fit in memory.",
            "Few validation examples; models in different basins.",
            "Wortsman et al. 2022, appendix, arXiv 2203.05482",
            LearnedSoupOptions,
            weights="none",
            needs_data=True,
        ),
        RuleCard(
            "swa",
            "SWA",
            "trajectory",
            "θ ← (n θ + θₜ) / (n + 1) over the checkpoints of one run, in order",
            "The run circles around a minimum at a constant or cyclic learning rate.",
            "Checkpoints from before the loss had settled; statistics that are not re-estimated.",
            "Izmailov et al. 2018, arXiv 1803.05407",
            SwaOptions,
            weights="none",
        ),
        RuleCard(
            "ema",
            "EMA",
            "trajectory",
            "θ̄ ← β θ̄ + (1 − β) θₜ over the checkpoints of one run, in order; θ = θ̄ / (1 − βⁿ)",
            "Later checkpoints are better, and noise is what differs between them.",
            "β too large for the number of checkpoints: early ones weigh in.",
            "Polyak and Juditsky 1992; bias correction as in Kingma and Ba 2015, arXiv 1412.6980",
            EmaOptions,
            weights="none",
        ),
        RuleCard(
            "lawa",
            "LAWA",
            "trajectory",
            "θ = mean of the last k checkpoints of one run",
            "The last checkpoints lie around one minimum, as late in training.",
            "A learning rate that has already decayed: the mean then gains nothing.",
            "Kaddour 2022, arXiv 2209.14981",
            LawaOptions,
            weights="none",
        ),
        RuleCard(
            "coordinate_median",
            "Coordinate median",
            "robust",
            "θᵢ = median of θₜᵢ over the models, entry by entry",
            "More than half of the models are honest and near one another.",
            "Models that differ much: the median of entries is then no model's.",
            "Yin et al. 2018, arXiv 1803.01498",
            weights="none",
        ),
        RuleCard(
            "trimmed_mean",
            "Trimmed mean",
            "robust",
            "θᵢ = mean of θₜᵢ without the largest and the smallest ⌊trim · T⌋, entry by entry",
            "Fewer bad models than are left out at each end.",
            "More bad models than that; few models, of which none can be left out.",
            "Yin et al. 2018, arXiv 1803.01498",
            TrimmedMeanOptions,
            weights="none",
        ),
        RuleCard(
            "krum",
            "Krum",
            "robust",
            "θ = the model with the least Σ ‖θₜ − θₛ‖² over its n − f − 2 nearest others",
            "At most f of n ≥ 2f + 3 models are bad, and honest ones are near one another.",
            "Honest models that differ much, of which it keeps one and drops the rest.",
            "Blanchard et al. 2017, arXiv 1703.02757",
            KrumOptions,
            weights="none",
            least_models=3,
        ),
    )
})


def find_rule_card(name: str) -> RuleCard:
    """The card of a rule.

    Raises:
        UnknownNameError: If there is no such rule.
    """
    return look_up(RULE_CARDS, name, "rule")


def read_rule_options(card: RuleCard, options: Mapping[str, Any] | None) -> Any:
    """A rule's options from a mapping; what is missing has its default.

    Args:
        card: The rule.
        options: Values by option name.

    Returns:
        The options record.

    Raises:
        UnknownNameError: If the rule has no such option, or an option's value is not among its
            choices or outside its range.
    """
    return read_record(card.title, card.options, options)
