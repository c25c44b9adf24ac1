"""Cards of the soups, which choose by examples."""

from __future__ import annotations

from dataclasses import dataclass, field

from merging.schema.cards.fusion.card import RuleCard


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


SOUPS: tuple[RuleCard, ...] = (
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
        assumes="Validation examples that nothing else was chosen on; all models fit in memory.",
        fails="Few validation examples; models in different basins.",
        paper="Wortsman et al. 2022, appendix, arXiv 2203.05482",
        options=LearnedSoupOptions,
        weights="none",
        needs_data=True,
    ),
)
