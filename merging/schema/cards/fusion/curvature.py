"""Cards of the rules that weigh parameters by curvature."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

# What Adam's second moments are multiplied by, unless a caller knows better: training examples
# times examples in a batch, 10,000 × 100. Only δ and what counts as flat are compared with it.
MOMENT_SCALE = 1e6


_CURVATURES = ("measured", "left out")


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
