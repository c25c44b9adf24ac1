"""Cards of the rules that average."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from merging.schema.cards.fusion.card import RuleCard

Angle = Literal["per tensor", "over all weights"]


@dataclass(frozen=True)
class SlerpOptions:
    """Options of SLERP.

    Attributes:
        angle: Whether every tensor has an angle of its own, as in `mergekit`, or the angle is that
            of all weights as one vector, as in Git Re-Basin's code.
    """

    angle: Angle = field(
        default="per tensor", metadata={"label": "Angle", "choices": get_args(Angle)}
    )


@dataclass(frozen=True)
class WiseFtOptions:
    """Options of WiSE-FT.

    Attributes:
        t: How far from the base: 0 is the base, 1 the mean of the models.
    """

    t: float = field(default=0.5, metadata={"label": "Way from the base", "min": 0.0, "max": 1.0})


MEANS: tuple[RuleCard, ...] = (
    RuleCard(
        name="average",
        title="Weighted mean",
        family="mean",
        formula="θ = Σ wₜ θₜ / Σ wₜ",
        assumes="The models lie in one basin: fine-tuned from one base, or aligned.",
        fails="Models in different basins; more different tasks than the weights have room for.",
        paper="Wortsman et al. 2022 (uniform soup), arXiv 2203.05482",
    ),
    RuleCard(
        name="slerp",
        title="SLERP",
        family="mean",
        formula=(
            "θ = sin((1−λ)Ω)/sin Ω · θ₁ + sin(λΩ)/sin Ω · θ₂, Ω the angle between the tensors, "
            "or between all weights"
        ),
        assumes="Two models in one basin whose norms matter.",
        fails="More than two models; tensors that point in opposite ways (the line is taken).",
        paper="Shoemake 1985; used for weights since Git Re-Basin's code",
        options=SlerpOptions,
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
)
