"""Cards of the rules that add task vectors to a base model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

_SCALE: dict[str, Any] = {"label": "Factor of the merged step", "min": -10.0, "max": 10.0}


_DENSITY: dict[str, Any] = {"label": "Share of entries kept", "min": 1e-6, "max": 1.0}


_TOTAL: dict[str, Any] = {"label": "What agrees is", "choices": ("averaged", "added")}


@dataclass(frozen=True)
class TaskArithmeticOptions:
    """Options of task arithmetic.

    Attributes:
        mode: `"add"` adds all task vectors; `"negate"` takes them away; `"analogy"` takes three
            models and adds the third's task vector and what leads from the first to the second.
        scale: Factor of what is added or taken away.
    """

    mode: str = field(
        default="add",
        metadata={"label": "Task vectors are", "choices": ("add", "negate", "analogy")},
    )
    scale: float = field(default=1.0, metadata=_SCALE)


@dataclass(frozen=True)
class TiesOptions:
    """Options of TIES.

    Attributes:
        density: Share of each task vector's entries that is kept, the largest of each tensor.
        scale: Factor of the merged task vector.
        total: Whether entries that agree are averaged, as in the paper, or added.
    """

    density: float = field(default=0.2, metadata=_DENSITY)
    scale: float = field(default=1.0, metadata=_SCALE)
    total: str = field(default="averaged", metadata=_TOTAL)


@dataclass(frozen=True)
class DareOptions:
    """Options of DARE.

    Attributes:
        drop: Share of each task vector's entries that is dropped.
        then: What merges the rest: their sum, or TIES' election of signs. Its trimming is left
            out: dropping has already left fewer entries than trimming would.
        total: With TIES, whether entries that agree are averaged or added.
    """

    drop: float = field(
        default=0.9, metadata={"label": "Share of entries dropped", "min": 0.0, "max": 0.999}
    )
    then: str = field(
        default="task arithmetic",
        metadata={"label": "What merges the rest", "choices": ("task arithmetic", "TIES")},
    )
    total: str = field(default="averaged", metadata=_TOTAL)
