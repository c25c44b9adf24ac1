"""One run of the experiment, and the accuracies it found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

Accuracies = np.ndarray  # one fraction per data set: the base's own, then the tasks'


@dataclass
class Run:
    """What one training of a family gave.

    Attributes:
        sets: Titles of the data sets, the base's first.
        references: Test accuracies of what is no merge, by title.
        rules: Their counterparts of merges.
        chosen: Coefficients that were chosen on validation, by title.
        sweeps: Test accuracies by rule and scale.
        mismatches: Mismatch of gradients by the same.
        switches: Test accuracies by setting of the one formula, and the largest difference of an
            entry from the rule that it should be.
        removals: Accuracy on the removed task and mean of the others, and the clamped share.
        errors: Eq. 10 and 12 by tensor.
        weights: Quartiles of the implied weights by model.
        vectors: What `compare_task_vectors` says.
    """

    sets: list[str]
    references: dict[str, Accuracies] = field(default_factory=dict)
    rules: dict[str, Accuracies] = field(default_factory=dict)
    chosen: dict[str, str] = field(default_factory=dict)
    sweeps: dict[tuple[str, float], Accuracies] = field(default_factory=dict)
    mismatches: dict[tuple[str, float], float] = field(default_factory=dict)
    switches: dict[str, tuple[Accuracies, float]] = field(default_factory=dict)
    removals: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    errors: dict[str, dict[str, Any]] = field(default_factory=dict)
    weights: list[tuple[str, np.ndarray]] = field(default_factory=list)
    vectors: Any = None
