"""Cards of the rules that weigh parameters by curvature."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from merging.schema.cards.fusion.card import RuleCard

# What Adam's second moments are multiplied by, unless a caller knows better: training examples
# times examples in a batch, 10,000 × 100. Only δ and what counts as flat are compared with it.
MOMENT_SCALE = 1e6
# Whose labels curvature is taken with: drawn from the model's own predictions, or the data's.
Labels = Literal["sampled", "true"]


Measured = Literal["measured", "left out"]


_DELTA: dict[str, Any] = {"label": "Precision of the prior (δ)", "min": 0.0, "max": 1e12}


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
    h0: Measured = field(
        default="measured",
        metadata={"label": "Curvature of the base, H₀", "choices": get_args(Measured)},
    )
    ht: Measured = field(
        default="measured",
        metadata={"label": "Curvature of the tasks, Hₜ", "choices": get_args(Measured)},
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


CURVATURE: tuple[RuleCard, ...] = (
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
        assumes="As Fisher averaging; no factor is tuned, and the curvatures' sizes alone count.",
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
        assumes="Losses are near quadratic around the models; curvature is taken on training data.",
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
)
