"""Scans over a rule's coefficient, and a rule with the best one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from merging.results.compute.entry import Entry
from merging.results.requests.fusion import FusionRequest, JudgedSplit, read_score, score_entry
from merging.results.requests.request import Request, canonical
from merging.schema.cards.fusion.table import find_card, read_rule_options
from merging.schema.records.scores import Scan, ScanPoint

# The coefficient that a rule is tuned by, and the values that are tried.
KNOBS: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "task_arithmetic": ("weights", tuple(k / 10 for k in range(1, 11))),
    "dare": ("weights", tuple(k / 10 for k in range(1, 11))),
    "gradient_matching": ("weights", tuple(k / 10 for k in range(1, 11))),
    "remove_task": ("weights", tuple(k / 10 for k in range(1, 11))),
    "ties": ("scale", tuple(k / 5 for k in range(1, 11))),
    "wise_ft": ("t", tuple(k / 10 for k in range(1, 11))),
}


def tuning(wanted: FusionRequest) -> ScanRequest | None:
    """Return the scan of a rule's coefficient on validation examples; None if it has none."""
    if wanted.rule not in KNOBS:
        return None
    knob, values = KNOBS[wanted.rule]
    return ScanRequest(replace(wanted, split="validation", weights=()), knob, values)


def on_split(scan: ScanRequest, split: JudgedSplit) -> ScanRequest:
    """Return the same scan on other examples."""
    return replace(scan, fusion=replace(scan.fusion, split=split))


def tuned(wanted: FusionRequest, scan: Scan) -> FusionRequest:
    """Return the same fusion with the coefficient that was best on validation examples."""
    knob, _ = KNOBS[wanted.rule]
    return with_knob(wanted, knob, scan.best)


def with_knob(wanted: FusionRequest, knob: str, value: float) -> FusionRequest:
    """Return the same fusion with one coefficient at another value.

    Args:
        wanted: The fusion.
        knob: `"weights"` for one number for all models, or the name of an option.
        value: The value.

    Returns:
        The fusion.

    Raises:
        UnknownNameError: If the rule has no such option, or the value is outside its range.
    """
    if knob == "weights":
        return replace(wanted, weights=(value,) * len(wanted.family.models))
    options = {**json.loads(wanted.options), knob: value}
    chosen = read_rule_options(find_card(wanted.rule), options)
    return replace(wanted, options=canonical(asdict(chosen)))


@dataclass(frozen=True)
class ScanRequest(Request[Scan]):
    """A rule with one of its coefficients at several values.

    Attributes:
        fusion: The rule, the models and all else.
        knob: `"weights"` for one number for all models, or the name of an option.
        values: The values.
    """

    task: ClassVar[str] = "scan"
    fusion: FusionRequest
    knob: str
    values: tuple[float, ...]

    @property
    def title(self) -> str:
        """What a person reads while it is computed."""
        return f"{self.fusion.title} at {len(self.values)} values"

    def needs(self) -> tuple[Request[Any], ...]:
        """Return what the rule needs."""
        return self.fusion.needs()

    def parts(self) -> list[dict[str, Any]]:
        """Return one piece for each value."""
        return [{"value": value} for value in self.values]

    def encode(self, found: ScanPoint) -> Entry:
        """Return the scores at one value as they are stored."""
        return Entry({}, {**score_entry(found.score).meta, "value": found.value})

    def decode(self, entry: Entry) -> ScanPoint:
        """Return the scores at one value."""
        return ScanPoint(entry.meta["value"], read_score(entry))

    def join(self, found: list[ScanPoint]) -> Scan:
        """Return the values that are there."""
        points = sorted(found, key=lambda point: point.value)
        scores = [point.score for point in points]

        def table(name: str) -> NDArray[np.float64]:
            return np.array([[getattr(task, name) for task in score.tasks] for score in scores])

        return Scan(
            rule=self.fusion.rule,
            values=np.array([point.value for point in points]),
            loss=table("loss"),
            accuracy=table("accuracy"),
            error=table("accuracy_error"),
            mismatch=np.array([score.mismatch for score in scores]),
            split=self.fusion.split,
        )
