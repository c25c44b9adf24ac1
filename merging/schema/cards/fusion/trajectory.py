"""Cards of the rules that average along one training run."""

from __future__ import annotations

from dataclasses import dataclass, field


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
