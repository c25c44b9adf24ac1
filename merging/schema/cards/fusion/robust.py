"""Cards of the rules that withstand bad models."""

from __future__ import annotations

from dataclasses import dataclass, field


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
