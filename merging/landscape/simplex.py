"""The simplex of three or more models: all their weighted means with shares from 0 to 1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from merging.files.data.batches import BatchesLike
from merging.landscape.evaluate.evaluation import Prepare, evaluate_family
from merging.models.state_dict import check_same_architecture
from merging.schema.cards.landscape import SIMPLEX_LEVELS
from merging.schema.errors import MergingError
from merging.schema.progress import Progress
from merging.schema.records.simplex import SimplexLoss


def simplex_points(resolution: int, corners: int) -> NDArray[np.float64]:
    """Return an even grid of shares that sum to 1.

    Args:
        resolution: Steps along an edge.
        corners: Number of models.

    Returns:
        `[k, corners]`, every row a point; the corners themselves exactly. `k` is the number of
        ways to put `resolution` steps into `corners` heaps.

    Example:
        >>> simplex_points(2, 3).tolist()[:3]
        [[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.5, 0.0, 0.5]]
    """
    steps = np.array(list(_heaps(resolution, corners)), dtype=np.float64)
    return steps / resolution


def _heaps(steps: int, heaps: int) -> Iterator[tuple[int, ...]]:
    if heaps == 1:
        yield (steps,)
        return
    for first in range(steps, -1, -1):
        for rest in _heaps(steps - first, heaps - 1):
            yield (first, *rest)


def new_simplex_points(level: int, corners: int) -> NDArray[np.float64]:
    """Return the points of a level of `SIMPLEX_LEVELS` that no earlier one has, `[k, corners]`."""
    points = simplex_points(SIMPLEX_LEVELS[level], corners)
    if level == 0:
        return points
    steps = np.rint(points * SIMPLEX_LEVELS[level]).astype(int)
    return points[(steps % 2 != 0).any(axis=1)]


def evaluate_simplex(
    model: nn.Module,
    corners: Mapping[str, Mapping[str, Tensor]],
    batches: BatchesLike,
    points: int | NDArray[np.float64] = 8,
    *,
    prepare: Prepare | None = None,
    statistics: str = "interpolated",
    split: str = "",
    on_progress: Progress | None = None,
) -> SimplexLoss:
    """Evaluate loss and accuracy of weighted means of three or more models.

    Args:
        model: The architecture.
        corners: State dicts by name; align them first.
        batches: Any re-iterable of `(inputs, targets)`.
        points: Steps along an edge, or the shares `[k, corners]`.
        prepare: Called with the parameters of every point; what it returns is evaluated.
        statistics: What `prepare` does, in words.
        split: Name of the examples.
        on_progress: Called with points done and in all.

    Returns:
        The losses; at a corner exactly those of that model.

    Raises:
        MergingError: If there are fewer than three models.
        ArchitectureMismatchError: If the models do not fit.
        DataError: If there are no examples, or they do not fit the model.
        StoppedError: If `on_progress` raises it.
    """
    names, models = tuple(corners), list(corners.values())
    check_corners(models)
    weights = simplex_points(points, len(names)) if isinstance(points, int) else points
    found = evaluate_family(
        model, models, weights, batches, prepare=prepare, on_progress=on_progress
    )
    return SimplexLoss(
        names=names,
        weights=weights,
        loss=found.loss,
        accuracy=found.accuracy,
        standard_error=found.standard_error,
        resolution=points if isinstance(points, int) else 0,
        split=split,
        examples=found.losses.shape[1],
        statistics=statistics,
    )


def check_corners(models: Sequence[Mapping[str, Tensor]]) -> None:
    """Make sure that a simplex has corners enough, of one architecture.

    Raises:
        MergingError: If there are fewer than three models.
        ArchitectureMismatchError: If they do not fit.
    """
    if len(models) < 3:
        raise MergingError(
            f"a simplex needs at least three models, and got {len(models)}; between two there is "
            "a line"
        )
    for other in models[1:]:
        check_same_architecture(models[0], other)
