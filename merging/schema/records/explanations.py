"""Why merges are as good as they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class TaskVectorSummary:
    """How what fine-tuning added compares between the models of a family.

    Attributes:
        norms: `[models]` Euclidean lengths of the task vectors.
        cosines: `[models, models]`.
        conflicts: `[models, models]` share of entries with opposite signs, among those that both
            models changed.
        any_conflict: Share of entries that some models raised and others lowered.
        tensors: Names of the tensors.
        contributions: `[models, tensors]` share of a task vector's squared length.
    """

    norms: NDArray[np.float64]
    cosines: NDArray[np.float64]
    conflicts: NDArray[np.float64]
    any_conflict: float
    tensors: tuple[str, ...]
    contributions: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ImpliedWeights:
    """The weight that gradient matching gives each entry of each task vector, as histograms.

    Attributes:
        edges: `[bins + 1]` edges of the bins.
        counts: `[models, bins]` entries.
        means: `[models]` mean weights.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    means: NDArray[np.float64]


@dataclass(frozen=True)
class TensorErrors:
    """How far a merge is from the joint model in one tensor (Daheim et al. 2024, Eq. 10).

    All are Euclidean lengths: measured, of the term that gradient mismatch predicts, of what models
    that are not stationary points add, and the bound by the triangle inequality.
    """

    rule: str
    tensor: str
    measured: float
    predicted: float
    residual: float
    bound: float


@dataclass(frozen=True)
class Removal:
    """What a model still knows of a task that was taken out of it.

    Attributes:
        name: `"joint"`, `"negation"` (task arithmetic) or `"removal"` (Eq. 13-14).
        scale: How much was removed.
        removed_accuracy: Accuracy on the task.
        others_accuracy: Mean accuracy on the other tasks.
        clamped: Share of the entries whose remaining curvature was clamped; NaN where none is used.
    """

    name: str
    scale: float
    removed_accuracy: float
    others_accuracy: float
    clamped: float
