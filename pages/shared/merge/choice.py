"""What the Merge page looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from merging.results import requests

FamilyKind = Literal["tasks", "seeds", "fine-tunes", "run"]
CurvatureSource = Literal["examples", "optimizer"]


@dataclass(frozen=True)
class Choice:
    """What is merged, with what screens call it.

    Attributes:
        title: What screens call the models together.
        kind: What kind of family it is; decides which rules are chosen first.
        family: The models.
        models: What screens call them.
        tasks: What screens call the tasks.
        prefixes: What was cut off the names of every model's file; empty for bundled models.
        order: How the models are lined up first, if at all.
        statistics: What is done about running statistics.
        moments: Adam's second moments in the checkpoints; None where they are not all there.
        curvature: Where curvature comes from.
    """

    title: str
    kind: FamilyKind
    family: requests.Family
    models: tuple[str, ...]
    tasks: tuple[str, ...]
    prefixes: tuple[str, ...] = ()
    order: requests.OrderRequest | None = None
    statistics: requests.FusedStatistics = "merged"
    moments: requests.Moments | None = None
    curvature: CurvatureSource = "examples"

    @property
    def chosen_moments(self) -> requests.Moments | None:
        """The second moments, if curvature is to come from there."""
        return self.moments if self.curvature == "optimizer" else None
