"""Cards of the rules that average along one training run."""

from __future__ import annotations

from dataclasses import dataclass, field

from merging.schema.cards.fusion.card import RuleCard


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


TRAJECTORY: tuple[RuleCard, ...] = (
    RuleCard(
        name="swa",
        title="SWA",
        family="trajectory",
        formula="θ ← (n θ + θₜ) / (n + 1) over the checkpoints of one run, in order",
        assumes="The run circles around a minimum at a constant or cyclic learning rate.",
        fails="Checkpoints from before the loss had settled; statistics that are not re-estimated.",
        paper="Izmailov et al. 2018, arXiv 1803.05407",
        options=SwaOptions,
        weights="none",
    ),
    RuleCard(
        name="ema",
        title="EMA",
        family="trajectory",
        formula="θ̄ ← β θ̄ + (1 − β) θₜ over the checkpoints of one run, in order; θ = θ̄ / (1 − βⁿ)",
        assumes="Later checkpoints are better, and noise is what differs between them.",
        fails="β too large for the number of checkpoints: early ones weigh in.",
        paper="Polyak and Juditsky 1992; bias correction as in Kingma and Ba 2015, arXiv 1412.6980",
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
)
