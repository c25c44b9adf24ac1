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
            name="average",
            title="Weighted mean",
            family="mean",
            formula="θ = Σ wₜ θₜ / Σ wₜ",
            assumes="The models lie in one basin: fine-tuned from one base, or aligned.",
            fails=(
                "Models in different basins; more different tasks than the weights have room for."
            ),
            paper="Wortsman et al. 2022 (uniform soup), arXiv 2203.05482",
        ),
        RuleCard(
            name="slerp",
            title="SLERP",
            family="mean",
            formula=(
                "θ = sin((1−λ)Ω)/sin Ω · θ₁ + sin(λΩ)/sin Ω · θ₂, Ω the angle between the tensors"
            ),
            assumes="Two models in one basin whose norms matter.",
            fails="More than two models; tensors that point in opposite ways (the line is taken).",
            paper="Shoemake 1985; used for weights since Git Re-Basin's code",
            least_models=2,
            most_models=2,
        ),
        RuleCard(
            name="wise_ft",
            title="WiSE-FT",
            family="mean",
            formula="θ = (1 − t) θ₀ + t · Σ wₜ θₜ / Σ wₜ",
            assumes="Fine-tuning stays in the base's basin, and the base knows what it forgot.",
            fails="A base that is no good by itself: a part of it is then only noise.",
            paper="Wortsman et al. 2022, arXiv 2109.01903",
            options=WiseFtOptions,
            needs_base=True,
        ),
        RuleCard(
            name="fedavg",
            title="FedAvg",
            family="mean",
            formula="θ = Σ (nₜ / n) θₜ, nₜ the examples that model t was trained on",
            assumes="Clients that started together and took few steps on data of one kind.",
            fails="Clients whose data differ much, and a client that lies.",
            paper="McMahan et al. 2017, arXiv 1602.05629",
            weights="none",
            needs_sizes=True,
        ),
        RuleCard(
            name="task_arithmetic",
            title="Task arithmetic",
            family="task vectors",
            formula="θ = θ₀ + λ Σ αₜ τₜ with τₜ = θₜ − θ₀; negation θ₀ − λ Σ αₜ τₜ; "
            "analogy θ₀ + λ (τ₃ + τ₂ − τ₁)",
            assumes="Small steps from one base; α tuned on validation data (often about 0.3).",
            fails="Many tasks with α = 1: the sum overshoots.",
            paper="Ilharco et al. 2023, arXiv 2212.04089",
            options=TaskArithmeticOptions,
            weights="scales",
            needs_base=True,
        ),
        RuleCard(
            name="ties",
            title="TIES",
            family="task vectors",
            formula="θ = θ₀ + λ · mean over {t : sign agrees} of trim(θₜ − θ₀)",
            assumes="Most of what fine-tuning changed is redundant; signs that conflict are noise.",
            fails="Few tasks, or large changes everywhere.",
            paper="Yadav et al. 2023, arXiv 2306.01708",
            options=TiesOptions,
            needs_base=True,
        ),
        RuleCard(
            name="dare",
            title="DARE",
            family="task vectors",
            formula="θ = θ₀ + Σ αₜ mₜ ⊙ (θₜ − θ₀) / (1 − p), mₜ ~ Bernoulli(1 − p); "
            "or TIES of the dropped and rescaled task vectors",
            assumes="Task vectors are small and redundant; expectation is task arithmetic's.",
            fails="Large task vectors: dropping adds noise.",
            paper="Yu et al. 2024, arXiv 2311.03099",
            options=DareOptions,
            weights="scales",
            needs_base=True,
        ),
        RuleCard(
            name="model_stock",
            title="Model Stock",
            family="task vectors",
            formula="θ = t · mean + (1 − t) · θ₀, t = K cos φ / ((K − 1) cos φ + 1) per tensor",
            assumes="Models fine-tuned on one task with different seeds: a shell around a centre.",
            fails="Different tasks, whose angles say nothing of noise.",
            paper="Jang et al. 2024, arXiv 2403.19522",
            weights="none",
            needs_base=True,
            least_models=2,
        ),
        RuleCard(
            name="fisher",
            title="Fisher averaging",
            family="curvature",
            formula="θ = Σ αₜ Fₜ θₜ / Σ αₜ Fₜ",
            assumes="Posteriors are Gaussian with diagonal precision, and independent of a base.",
            fails="Fine-tuned models, whose dependence on the base it ignores.",
            paper="Matena and Raffel 2022, arXiv 2111.09832",
            options=FisherOptions,
            needs_fishers=True,
        ),
        RuleCard(
            name="fisher_unit",
            title="Fisher averaging, αₜ = 1",
            family="curvature",
            formula="θ = Σ Fₜ θₜ / Σ Fₜ",
            assumes=(
                "As Fisher averaging; no factor is tuned, and the curvatures' sizes alone count."
            ),
            fails="As Fisher averaging; and tasks with much data drown the others.",
            paper="FA1 in Table 1 of Daheim et al. 2024, arXiv 2310.12808",
            options=FisherOptions,
            weights="none",
            needs_fishers=True,
        ),
        RuleCard(
            name="gradient_matching",
            title="Gradient matching",
            family="curvature",
            formula="θ = θ₀ + Σ αₜ (H₀ + Hₜ) / (H₀ + Σ αₛ Hₛ) · (θₜ − θ₀)",
            assumes=(
                "Losses are near quadratic around the models; curvature is taken on training data."
            ),
            fails="Large steps from the base, over which curvature changes.",
            paper="Daheim et al. 2024, Eq. 12, arXiv 2310.12808",
            options=GradientMatchingOptions,
            weights="scales",
            needs_base=True,
            needs_fishers=True,
            needs_base_fisher=True,
        ),
        RuleCard(
            name="remove_task",
            title="Removing tasks",
            family="curvature",
            formula="θ = θ₀ − Σ αₜ (H₀ + Hₜ) / (H₀ − Σ αₛ Hₛ) · (θₜ − θ₀)",
            assumes="The base was trained on the task's data too, and H₀ counts them.",
            fails="H₀ − Σ αₜ Hₜ near 0 or below, where it is clamped: watch the clamped share.",
            paper="Daheim et al. 2024, Eq. 13–14, arXiv 2310.12808",
            options=RemoveTaskOptions,
            weights="scales",
            needs_base=True,
            needs_fishers=True,
            needs_base_fisher=True,
        ),
        RuleCard(
            name="regmean",
            title="RegMean",
            family="activations",
            formula="W = (Σ wₜ Gₜ)⁻¹ Σ wₜ Gₜ Wₜ with Gₜ the Gram matrix of the layer's inputs",
            assumes="Each layer should answer on each task's inputs as that task's model does.",
            fails="Deep networks: inputs of a merged layer are not those the Grams were taken on.",
            paper="Jin et al. 2023, arXiv 2212.09849",
            options=RegMeanOptions,
            needs_grams=True,
        ),
        RuleCard(
            name="uniform_soup",
            title="Uniform soup",
            family="soup",
            formula="θ = Σ θₜ / T",
            assumes="All models are good, and fine-tuned from one base on one task.",
            fails="One bad model spoils the mean.",
            paper="Wortsman et al. 2022, arXiv 2203.05482",
            weights="none",
        ),
        RuleCard(
            name="greedy_soup",
            title="Greedy soup",
            family="soup",
            formula="best first: a model joins the mean if validation accuracy strictly rises",
            assumes="Validation examples that nothing else was chosen on.",
            fails="Few validation examples, on which accuracy rises by chance.",
            paper="Wortsman et al. 2022, arXiv 2203.05482",
            weights="none",
            needs_data=True,
        ),
        RuleCard(
            name="learned_soup",
            title="Learned soup",
            family="soup",
            formula="θ = Σ βₜ θₜ with β, τ = argmin Σ CE(τ f(x; Σ βₜ θₜ), y), β a softmax",
            assumes=(
                "Validation examples that nothing else was chosen on; all models fit in memory."
            ),
            fails="Few validation examples; models in different basins.",
            paper="Wortsman et al. 2022, appendix, arXiv 2203.05482",
            options=LearnedSoupOptions,
            weights="none",
            needs_data=True,
        ),
        RuleCard(
            name="swa",
            title="SWA",
            family="trajectory",
            formula="θ ← (n θ + θₜ) / (n + 1) over the checkpoints of one run, in order",
            assumes="The run circles around a minimum at a constant or cyclic learning rate.",
            fails=(
                "Checkpoints from before the loss had settled; statistics that are not "
                "re-estimated."
            ),
            paper="Izmailov et al. 2018, arXiv 1803.05407",
            options=SwaOptions,
            weights="none",
        ),
        RuleCard(
            name="ema",
            title="EMA",
            family="trajectory",
            formula=(
                "θ̄ ← β θ̄ + (1 − β) θₜ over the checkpoints of one run, in order; θ = θ̄ / (1 − βⁿ)"
            ),
            assumes="Later checkpoints are better, and noise is what differs between them.",
            fails="β too large for the number of checkpoints: early ones weigh in.",
            paper=(
                "Polyak and Juditsky 1992; bias correction as in Kingma and Ba 2015, arXiv "
                "1412.6980"
            ),
            options=EmaOptions,
            weights="none",
        ),
        RuleCard(
            name="lawa",
            title="LAWA",
            family="trajectory",
            formula="θ = mean of the last k checkpoints of one run",
            assumes="The last checkpoints lie around one minimum, as late in training.",
            fails="A learning rate that has already decayed: the mean then gains nothing.",
            paper="Kaddour 2022, arXiv 2209.14981",
            options=LawaOptions,
            weights="none",
        ),
        RuleCard(
            name="coordinate_median",
            title="Coordinate median",
            family="robust",
            formula="θᵢ = median of θₜᵢ over the models, entry by entry",
            assumes="More than half of the models are honest and near one another.",
            fails="Models that differ much: the median of entries is then no model's.",
            paper="Yin et al. 2018, arXiv 1803.01498",
            weights="none",
        ),
        RuleCard(
            name="trimmed_mean",
            title="Trimmed mean",
            family="robust",
            formula=(
                "θᵢ = mean of θₜᵢ without the largest and the smallest ⌊trim · T⌋, entry by entry"
            ),
            assumes="Fewer bad models than are left out at each end.",
            fails="More bad models than that; few models, of which none can be left out.",
            paper="Yin et al. 2018, arXiv 1803.01498",
            options=TrimmedMeanOptions,
            weights="none",
        ),
        RuleCard(
            name="krum",
            title="Krum",
            family="robust",
            formula="θ = the model with the least Σ ‖θₜ − θₛ‖² over its n − f − 2 nearest others",
            assumes="At most f of n ≥ 2f + 3 models are bad, and honest ones are near one another.",
            fails="Honest models that differ much, of which it keeps one and drops the rest.",
            paper="Blanchard et al. 2017, arXiv 1703.02757",
            options=KrumOptions,
            weights="none",
            least_models=3,
        ),
    )
})


def find_rule_card(name: str) -> RuleCard:
    """Find the card of a rule.

    Raises:
        UnknownNameError: If there is no such rule.
    """
    return look_up(RULE_CARDS, name, "rule")


def read_rule_options(card: RuleCard, options: Mapping[str, Any] | None) -> Any:
    """Read a rule's options from a mapping; what is missing has its default.

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
    """List the names of all rules and ways, in the order of menus."""
    return [*RULE_CARDS, *WAY_CARDS]


def find_way(name: str) -> RuleCard:
    """Find the card of a rule or of a way.

    Raises:
        UnknownNameError: If there is neither.
    """
    return look_up({**RULE_CARDS, **WAY_CARDS}, name, "rule")
