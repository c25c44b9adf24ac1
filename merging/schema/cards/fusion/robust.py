"""Cards of the rules that withstand bad models."""

from __future__ import annotations

from dataclasses import dataclass, field

from merging.schema.cards.fusion.card import RuleCard


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


ROBUST: tuple[RuleCard, ...] = (
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
        formula="θᵢ = mean of θₜᵢ without the largest and the smallest ⌊trim · T⌋, entry by entry",
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
