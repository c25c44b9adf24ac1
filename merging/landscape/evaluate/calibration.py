"""How far a model's confidence agrees with how often it is right."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from merging.landscape.evaluate.predictions import answers

BINS = 15


@dataclass(frozen=True, eq=False)
class Calibration:
    """How often a model is right where it is so and so sure (Guo et al. 2017).

    Attributes:
        error: Expected calibration error: mean gap between confidence and accuracy over the bins,
            by their number of examples.
        confidences: `[bins]` mean confidence; NaN for empty bins.
        rights: `[bins]` fraction of right answers.
        counts: `[bins]` examples.
    """

    error: float
    confidences: Tensor
    rights: Tensor
    counts: Tensor


def calibrate(outputs: Tensor, targets: Tensor) -> Calibration:
    """Sort examples into bins of equal width by the confidence of their answer.

    Args:
        outputs: `[n, classes]`, or `[n, 1]` for yes and no.
        targets: int64 `[n]`.

    Returns:
        The calibration over 15 bins; examples whose outputs are not finite are left out.
    """
    if outputs.shape[-1] == 1:
        yes = outputs[:, 0].double().sigmoid()
        confidence = torch.maximum(yes, 1 - yes)
    else:
        confidence = outputs.double().softmax(-1).amax(-1)
    right = (answers(outputs) == targets).double()
    known = confidence.isfinite()  # weights that blew up answer with NaN
    confidence, right = confidence[known], right[known]
    place = (confidence * BINS).long().clamp_max(BINS - 1)
    counts = torch.bincount(place, minlength=BINS)
    sums = torch.zeros(2, BINS, dtype=torch.float64)
    sums[0].index_add_(0, place, confidence)
    sums[1].index_add_(0, place, right)
    confidences, rights = sums / counts  # NaN where there are none
    gaps = (sums[0] - sums[1]).abs()
    error = float(gaps.sum() / len(right)) if len(right) else float("nan")
    return Calibration(error=error, confidences=confidences, rights=rights, counts=counts)
