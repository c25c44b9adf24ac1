"""What can be asked about why a merge is as good as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from merging.results.compute.entry import Entry
from merging.results.requests.curvature import Moments
from merging.results.requests.family import Family
from merging.results.requests.fusion import FusedStatistics, FusionRequest, fusion, lacking
from merging.results.requests.request import Request
from merging.results.requests.tuning import KNOBS, ScanRequest
from merging.results.requests.wire import (
    flat_entry,
    flat_record,
    row_records,
    rows_entry,
)
from merging.schema.cards.fusion.table import find_card
from merging.schema.records.explanations import (
    ImpliedWeights,
    Removal,
    TaskVectorSummary,
    TensorErrors,
)

# Precision of the prior where errors are split, without one flat entries would be all of them; and
# where a task is taken out, until somebody chooses another.
PRIOR_PRECISION = 1.0
# Precision of the prior in gradient matching, until somebody chooses another: next to none.
LEAST_PRIOR = 1e-12

_SCANNED = ("task_arithmetic", "dare", "ties", "gradient_matching", "average", "fisher")


def mismatch_scans(
    family: Family, statistics: FusedStatistics = "merged", moments: Moments | None = None
) -> list[ScanRequest]:
    """List scans of rules: gradient mismatch and test error at several values of a coefficient."""
    scans = []
    for rule in _SCANNED:
        knob, values = KNOBS.get(rule, ("weights", (1.0,)))
        card = find_card(rule)
        own = moments if card.needs_fishers else None
        if not lacking(card, family, own):
            wanted = fusion(family, rule, statistics=statistics, moments=own)
            scans.append(ScanRequest(wanted, knob, values))
    return scans


def switched(
    family: Family,
    *,
    base_curvature: bool = True,
    task_curvature: bool = True,
    mean: bool = False,
    delta: float = LEAST_PRIOR,
    moments: Moments | None = None,
) -> FusionRequest:
    """Return gradient matching with parts of its formula left out, which makes other rules of it.

    Args:
        family: The models and their base.
        base_curvature: Whether H₀ is measured.
        task_curvature: Whether the Hₜ are.
        mean: Whether α is 1 / T rather than 1.
        delta: Precision of the prior.
        moments: Adam's second moments, if curvature is to come from there.

    Returns:
        The fusion.
    """
    options = {
        "delta": delta,
        "h0": "measured" if base_curvature else "left out",
        "ht": "measured" if task_curvature else "left out",
    }
    count = len(family.models)
    weights = ((1 / count if mean else 1.0),) * count
    return fusion(family, "gradient_matching", options, weights=weights, moments=moments)


@dataclass(frozen=True)
class TaskVectorsRequest(Request[TaskVectorSummary]):
    """How the task vectors of a family compare."""

    task: ClassVar[str] = "task vectors"
    words: ClassVar[str] = "Comparing what fine-tuning added"
    family: Family

    def encode(self, found: TaskVectorSummary) -> Entry:
        """Return the comparison as it is stored."""
        return flat_entry(found)

    def decode(self, entry: Entry) -> TaskVectorSummary:
        """Return the comparison."""
        return flat_record(TaskVectorSummary, entry)


@dataclass(frozen=True)
class ImpliedWeightsRequest(Request[ImpliedWeights]):
    """The weights that gradient matching gives to single entries."""

    task: ClassVar[str] = "implied weights"
    words: ClassVar[str] = "Weights of single entries"
    fusion: FusionRequest

    def needs(self) -> tuple[Request[Any], ...]:
        """Return the curvatures."""
        return self.fusion.needs()

    def encode(self, found: ImpliedWeights) -> Entry:
        """Return the histograms as they are stored."""
        return flat_entry(found)

    def decode(self, entry: Entry) -> ImpliedWeights:
        """Return the histograms."""
        return flat_record(ImpliedWeights, entry)


@dataclass(frozen=True)
class ErrorsRequest(Request[list[TensorErrors]]):
    """What sets task arithmetic and gradient matching apart from the joint model."""

    task: ClassVar[str] = "errors"
    words: ClassVar[str] = "What sets merges apart from the joint model"
    fusion: FusionRequest

    def needs(self) -> tuple[Request[Any], ...]:
        """Return the curvatures."""
        return self.fusion.needs()

    def encode(self, found: list[TensorErrors]) -> Entry:
        """Return one row per rule and tensor, as they are stored."""
        return rows_entry(found)

    def decode(self, entry: Entry) -> list[TensorErrors]:
        """Return one row per rule and tensor."""
        return row_records(TensorErrors, entry)


@dataclass(frozen=True)
class RemovalRequest(Request[list[Removal]]):
    """One task taken out of the joint model again.

    The joint model is fine-tuned on the task, and what that added is taken off.

    Attributes:
        family: The family; it has a joint model.
        removed: Number of the task.
        scales: Factors to remove it with.
        delta: Precision of the prior.
        epochs: Passes over the task's training examples.
        lr: Step size of Adam.
        seed: Of the order of the examples and of drawn labels.
    """

    task: ClassVar[str] = "removal"
    words: ClassVar[str] = "Taking a task out of the joint model"
    family: Family
    removed: int
    scales: tuple[float, ...] = (0.1, 0.3, 1.0)
    delta: float = 1e-12
    epochs: int = 10
    lr: float = 3e-4
    seed: int = 0

    def encode(self, found: list[Removal]) -> Entry:
        """Return one row per model, as they are stored."""
        return rows_entry(found)

    def decode(self, entry: Entry) -> list[Removal]:
        """Return one row per model."""
        return row_records(Removal, entry)
