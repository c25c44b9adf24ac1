"""Loss and accuracy along the straight line from model A to model B."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from merging.files.data.batches import BatchesLike
from merging.landscape.evaluate.evaluation import Evaluation, Prepare, evaluate_family
from merging.models.state_dict import check_same_architecture
from merging.schema.progress import Progress
from merging.schema.records.curve import Curve


def line_positions(lams: int | Sequence[float] = 25, overshoot: float = 0.0) -> NDArray[np.float64]:
    """Return positions on the line, both end points among them exactly.

    Args:
        lams: Number of equal steps' ends in `[0, 1]` (1 is model A alone), or the positions.
        overshoot: How far the same step goes on beyond both models.

    Returns:
        `[k]`, ascending.

    Example:
        >>> line_positions(3, overshoot=0.5).tolist()
        [-0.5, 0.0, 0.5, 1.0, 1.5]
    """
    if isinstance(lams, int) and lams < 2:
        return np.zeros(1)
    if not isinstance(lams, int):
        return np.asarray(lams, dtype=np.float64)
    extra = round(overshoot * (lams - 1))
    return np.arange(-extra, lams + extra) / (lams - 1)


def interpolate(
    model: nn.Module,
    params_a: Mapping[str, Tensor],
    params_b: Mapping[str, Tensor],
    batches: BatchesLike,
    lams: int | Sequence[float] = 25,
    *,
    overshoot: float = 0.0,
    prepare: Prepare | None = None,
    statistics: str = "interpolated",
    split: str = "",
    on_progress: Progress | None = None,
) -> Curve:
    """Evaluate the line from model A to model B.

    At 0 and 1 the values are exactly those of the models themselves. Running statistics of norms
    are interpolated like parameters, unless `prepare` re-estimates them.

    Args:
        model: The architecture.
        params_a: State dict of model A.
        params_b: State dict of model B; permute it first for an aligned curve.
        batches: Any re-iterable of `(inputs, targets)`.
        lams: Number of positions in `[0, 1]`, or the positions themselves.
        overshoot: How far to go on beyond both models.
        prepare: Called with the parameters of every position; what it returns is evaluated.
        statistics: What `prepare` does, in words.
        split: Name of the examples.
        on_progress: Called with positions done and in all.

    Returns:
        The curve, with the loss of every example.

    Raises:
        ArchitectureMismatchError: If the models do not fit; layers are named.
        DataError: If there are no examples, or they do not fit the model.
        StoppedError: If `on_progress` raises it.
    """
    check_same_architecture(params_a, params_b)
    positions = line_positions(lams, overshoot)
    weights = np.stack([1 - positions, positions], axis=1)
    found = evaluate_family(
        model, [params_a, params_b], weights, batches, prepare=prepare, on_progress=on_progress
    )
    return curve_of(positions, found, statistics=statistics, split=split)


def curve_of(
    lams: NDArray[np.float64],
    found: Evaluation,
    *,
    statistics: str = "interpolated",
    split: str = "",
) -> Curve:
    """Return the curve of an evaluation whose points are the positions `lams`."""
    return Curve(
        lams=lams,
        loss=found.loss,
        accuracy=found.accuracy,
        example_losses=found.losses,
        example_correct=found.correct,
        statistics=statistics,
        split=split,
    )
