"""What the fusion rules are called, what they need and which options they have; no torch.

The interface process builds its forms from this table. What a rule does is in its own file in
`merging/fusion`, which joins its card to a function. θ₀ is the base, θₜ model t, wₜ and αₜ the
numbers per model: shares of a mean, or factors of task vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from merging.schema.cards.fusion.card import RuleCard
from merging.schema.cards.fusion.curvature import (
    FisherOptions,
    GradientMatchingOptions,
    RegMeanOptions,
    RemoveTaskOptions,
)
from merging.schema.cards.fusion.means import WiseFtOptions
from merging.schema.cards.fusion.networks import WAY_CARDS
from merging.schema.cards.fusion.robust import KrumOptions, TrimmedMeanOptions
from merging.schema.cards.fusion.soups import LearnedSoupOptions
from merging.schema.cards.fusion.task_vectors import DareOptions, TaskArithmeticOptions, TiesOptions
from merging.schema.cards.fusion.trajectory import EmaOptions, LawaOptions, SwaOptions
from merging.schema.options import look_up, read_record

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


def names() -> list[str]:
    """Names of all rules and ways, in the order of menus."""
    return [*RULE_CARDS, *WAY_CARDS]


def find_way(name: str) -> RuleCard:
    """The card of a rule or of a way.

    Raises:
        UnknownNameError: If there is neither.
    """
    return look_up({**RULE_CARDS, **WAY_CARDS}, name, "rule")
