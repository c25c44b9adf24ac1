"""Loss and accuracy on a plane through weight space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from merging.schema.records.loss_unit import LossUnit, unit_of_loss


@dataclass(frozen=True)
class PlanePoint:
    """A model drawn on a plane: its coordinates, and how far it lies off the plane."""

    name: str
    x: float
    y: float
    residual: float = 0.0


@dataclass(frozen=True, eq=False)
class PlanePath:
    """A trained path projected on a plane.

    Attributes:
        kind: `"bezier"`, `"chain"` or `"neb"`.
        x: `[k]` coordinates of points along the path.
        y: `[k]` coordinates.
        residual: `[k]` their distances from the plane.
    """

    kind: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    residual: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Surface:
    """Loss and accuracy on a grid of a plane through weight space.

    Coordinates are distances in weight space (the plane's basis is orthonormal), unless the plane
    is spanned by filter-normalized directions: then they are multiples of the directions.

    Attributes:
        x: `[c]` coordinates along the first basis vector.
        y: `[r]` coordinates along the second.
        loss: `[r, c]` mean loss per example, in `loss_unit`; NaN and infinity are kept as they
            came out.
        accuracy: `[r, c]` fractions.
        standard_error: `[r, c]` standard error of the loss over the examples.
        evaluated: `[r, c]` which points have been evaluated so far.
        points: The models that span the plane, and others projected on it.
        scale: Length that a screen calls 1: the distance from A to B, or 1.
        split: The examples' name.
        examples: Number of examples behind every value.
        statistics: What was done about the statistics of hidden units, in words.
        paths: Trained paths, projected on the plane.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    loss: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    evaluated: NDArray[np.bool_]
    points: tuple[PlanePoint, ...] = ()
    scale: float = 1.0
    split: str = ""
    examples: int = 0
    statistics: str = "interpolated"
    paths: tuple[PlanePath, ...] = ()

    @property
    def loss_unit(self) -> LossUnit:
        """Nats; or squared error, where numbers are predicted."""
        return unit_of_loss(self.accuracy[self.evaluated])

    @property
    def non_finite(self) -> int:
        """Number of evaluated points whose loss is NaN or infinite."""
        return int((self.evaluated & ~np.isfinite(self.loss)).sum())

    @property
    def complete(self) -> bool:
        """Whether every point of the grid has been evaluated."""
        return bool(self.evaluated.all())


@dataclass(frozen=True, eq=False)
class SurfaceModels:
    """The models and the trained paths of a surface, on its plane."""

    points: tuple[PlanePoint, ...] = ()
    paths: tuple[PlanePath, ...] = ()


@dataclass(frozen=True, eq=False)
class SurfacePoints:
    """Some points of a surface's grid.

    Attributes:
        cells: int16 `[2, k]` rows and columns on the grid of `level`.
        values: float32 `[3, k]` loss, accuracy, and standard error of the loss.
        level: Index of the grid, from coarse to fine.
        x: First and last coordinate along the first basis vector.
        y: First and last coordinate along the second.
        scale: As in `Surface`.
        examples: Number of examples behind every value.
        statistics: What was done about the statistics of hidden units, in words.
    """

    cells: NDArray[np.int16]
    values: NDArray[np.float32]
    level: int
    x: tuple[float, float]
    y: tuple[float, float]
    scale: float
    examples: int
    statistics: str
