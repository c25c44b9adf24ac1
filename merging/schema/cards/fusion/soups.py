"""Cards of the soups, which choose by examples."""

from __future__ import annotations

from dataclasses import dataclass, field


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
