"""Cards of the rules that average."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class WiseFtOptions:
    """Options of WiSE-FT.

    Attributes:
        t: How far from the base: 0 is the base, 1 the mean of the models.
    """

    t: float = field(default=0.5, metadata={"label": "Way from the base", "min": 0.0, "max": 1.0})
