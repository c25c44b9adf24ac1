"""Two-dimensional slices of the loss surface.

A plane has an origin and two directions in weight space. Through three models the basis is
orthonormal, so coordinates are distances; filter-normalized random directions (Li et al. 2018)
have the scale of the filters that they perturb.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from merging.files.checkpoints.lazy_params import Params
from merging.files.data.batches import BatchesLike
from merging.landscape.evaluate.evaluation import Prepare, evaluate_family
from merging.models.state_dict import check_same_architecture, combine, dot, norm, scale, subtract
from merging.schema.cards.landscape import LEVELS
from merging.schema.errors import MergingError
from merging.schema.progress import Progress
from merging.schema.records.surface import PlanePoint, Surface

# Directions shorter than this share of the first are no directions of their own.
_LEAST_ANGLE = 1e-6


@dataclass(frozen=True, eq=False)
class Plane:
    """A plane through weight space.

    Attributes:
        origin: State dict at `(0, 0)`.
        basis: Two directions; their tensors have the origin's names.
        corners: Coordinates of the models that span the plane.
        orthonormal: Whether the directions are orthonormal.
    """

    origin: Params
    basis: tuple[Params, Params]
    corners: tuple[tuple[float, float], ...]
    orthonormal: bool = True

    def coordinates(self, params: Mapping[str, Tensor]) -> tuple[float, float]:
        """Return the coordinates of the point of the plane that is nearest to a model.

        Args:
            params: State dict of the model.

        Returns:
            `(x, y)`.
        """
        step = subtract(params, self.origin)
        right = np.array([dot(step, direction) for direction in self.basis])
        gram = np.array([[dot(p, q) for q in self.basis] for p in self.basis])
        x, y = np.linalg.solve(gram, right)
        return float(x), float(y)

    def residual(self, params: Mapping[str, Tensor]) -> float:
        """Return the distance of a model from the plane, in weight space."""
        return norm(subtract(params, self.point(*self.coordinates(params))))

    def point(self, x: float, y: float) -> Params:
        """Return the state dict at coordinates `(x, y)`."""
        return combine([self.origin, *self.basis], [1.0, x, y])


def plane_through(
    params_a: Mapping[str, Tensor], params_b: Mapping[str, Tensor], params_c: Mapping[str, Tensor]
) -> Plane:
    """Return the plane through three models, with an orthonormal basis.

    Model A is the origin, B lies on the positive x axis, C in the upper half.

    Args:
        params_a: State dict of model A.
        params_b: State dict of model B.
        params_c: State dict of the third model.

    Returns:
        The plane.

    Raises:
        ArchitectureMismatchError: If the models do not fit.
        MergingError: If the three lie on one line, or two of them are equal.
    """
    check_same_architecture(params_a, params_b)
    check_same_architecture(params_a, params_c)
    first, third = subtract(params_b, params_a), subtract(params_c, params_a)
    length = norm(first)
    if length == 0:
        raise MergingError("the first two models of the plane are equal; choose another")
    x = scale(first, 1 / length)
    across = dot(third, x)
    rest = _minus(third, x, across)
    height = norm(rest)
    if height < _LEAST_ANGLE * max(length, norm(third)):
        raise MergingError(
            "the three models of the plane lie on one line (two may be equal); choose another"
        )
    y = scale(rest, 1 / height)
    return Plane(dict(params_a), (x, y), ((0.0, 0.0), (length, 0.0), (across, height)))


def _minus(step: Params, direction: Params, amount: float) -> Params:
    return {
        name: value - amount * direction[name] if value.is_floating_point() else value
        for name, value in step.items()
    }


def filter_normalized_plane(params: Mapping[str, Tensor], generator: torch.Generator) -> Plane:
    """Return the plane through a model along two filter-normalized random directions.

    Every filter (a slice of axis 0) of a direction has the norm of the model's own filter;
    biases, norms and statistics are not perturbed (Li et al. 2018, §4).

    Args:
        params: State dict of the model.
        generator: Source of the directions.

    Returns:
        The plane; coordinates are multiples of the directions.
    """
    basis = (_filter_normalized(params, generator), _filter_normalized(params, generator))
    return Plane(dict(params), basis, ((0.0, 0.0),), orthonormal=False)


def _filter_normalized(params: Mapping[str, Tensor], generator: torch.Generator) -> Params:
    direction: Params = {}
    for name, value in params.items():
        if not value.is_floating_point() or value.dim() < 2:
            direction[name] = torch.zeros_like(value)
            continue
        noise = torch.randn(value.shape, generator=generator).to(value.dtype)
        ratio = value.flatten(1).norm(dim=1) / (noise.flatten(1).norm(dim=1) + 1e-10)
        direction[name] = noise * ratio.view(-1, *[1] * (value.dim() - 1))
    return direction


def grid_axes(
    plane: Plane, resolution: int, margin: float = 0.25
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the coordinates of a grid that holds the plane's models with a margin around them.

    Args:
        plane: The plane.
        resolution: Points per side.
        margin: Margin as a share of the larger side; for a plane around one model, the grid
            reaches from -1 to 1.

    Returns:
        x and y, `[resolution]` each, with equal steps.
    """
    if len(plane.corners) == 1:
        axis = np.linspace(-1, 1, resolution)
        return axis, axis
    corners = np.array(plane.corners)
    low, high = corners.min(0), corners.max(0)
    half = (high - low).max() * (0.5 + margin)
    middle = (low + high) / 2
    x, y = (np.linspace(m - half, m + half, resolution) for m in middle)
    return x, y


def strip_axes(
    plane: Plane, resolution: int, margin: float = 0.1
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return coordinates of a grid that is wider than high, for a third model close to the line.

    Across the line it reaches as far again as the third model lies from it, or 15 % of the
    distance of the first two if that is more: a square would show mostly what is far away.

    Args:
        plane: A plane through three models.
        resolution: Points per side, along and across.
        margin: Margin along the line, as a share of the distance of the first two models.

    Returns:
        x and y, `[resolution]` each.
    """
    corners = np.array(plane.corners)
    length, height = corners[1, 0], corners[2, 1]
    low, high = corners[:, 0].min() - margin * length, corners[:, 0].max() + margin * length
    half = max(1.5 * height, 0.15 * length)
    x = np.linspace(low, high, resolution)
    return x, np.linspace(height / 2 - half, height / 2 + half, resolution)


def evaluate_plane(
    model: nn.Module,
    plane: Plane,
    batches: BatchesLike,
    resolution: int = 33,
    margin: float = 0.25,
    *,
    prepare: Prepare | None = None,
    on_progress: Progress | None = None,
) -> Surface:
    """Evaluate a plane on a square grid.

    Args:
        model: The architecture.
        plane: The plane.
        batches: Any re-iterable of `(inputs, targets)`.
        resolution: Points per side.
        margin: Margin around the plane's models.
        prepare: Called with the parameters of every point; what it returns is evaluated.
        on_progress: Called with points done and in all.

    Returns:
        The surface; NaN and infinity are kept as they come out.

    Raises:
        DataError: If there are no examples, or they do not fit the model.
        StoppedError: If `on_progress` raises it.
    """
    x, y = grid_axes(plane, resolution, margin)
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    values = evaluate_points(
        model, plane, grid, batches, prepare=prepare, on_progress=on_progress
    ).reshape(3, resolution, resolution)
    points = tuple(
        PlanePoint(name, *corner) for name, corner in zip("ABC", plane.corners, strict=False)
    )
    length = plane.corners[1][0] if plane.orthonormal else 1.0
    evaluated = np.ones((resolution, resolution), dtype=bool)
    return Surface(
        x=x,
        y=y,
        loss=values[0],
        accuracy=values[1],
        standard_error=values[2],
        evaluated=evaluated,
        points=points,
        scale=length,
    )


def evaluate_points(
    model: nn.Module,
    plane: Plane,
    coordinates: NDArray[np.float64] | Sequence[tuple[float, float]],
    batches: BatchesLike,
    *,
    prepare: Prepare | None = None,
    on_progress: Progress | None = None,
) -> NDArray[np.float64]:
    """Evaluate loss, accuracy and standard error of the loss at points of a plane.

    Args:
        model: The architecture.
        plane: The plane.
        coordinates: `[k, 2]`.
        batches: Any re-iterable of `(inputs, targets)`.
        prepare: Called with the parameters of every point; what it returns is evaluated.
        on_progress: Called with points done and in all.

    Returns:
        `[3, k]`.

    Raises:
        DataError: If there are no examples, or they do not fit the model.
        StoppedError: If `on_progress` raises it.
    """
    places = np.asarray(coordinates, dtype=np.float64)
    weights = np.concatenate([np.ones((len(places), 1)), places], axis=1)
    corners = [plane.origin, *plane.basis]
    found = evaluate_family(
        model, corners, weights, batches, prepare=prepare, on_progress=on_progress
    )
    return np.stack([found.loss, found.accuracy, found.standard_error])


def new_points(level: int) -> NDArray[np.bool_]:
    """Return which points of a nested grid belong to a level and to none before it.

    Args:
        level: Index into `LEVELS`.

    Returns:
        bool `[n, n]` on that level's grid.

    Example:
        >>> new_points(0).all(), int(new_points(1).sum())
        (np.True_, 208)
    """
    n = LEVELS[level]
    fresh = np.ones((n, n), dtype=bool)
    if level:
        fresh[::2, ::2] = False
    return fresh
