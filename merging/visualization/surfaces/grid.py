"""Which part of a grid is a valid picture, and whether level lines would trace its noise."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from merging.schema.records.surface import Surface

LEAST_SIDE = 5


@dataclass(frozen=True)
class Shown:
    """The part of a surface that is drawn.

    Attributes:
        surface: The surface on the part's own grid; its points are evaluated where `whole`.
        whole: Whether every point of that grid has been evaluated.
        finest: Whether it is the grid that was asked for.
    """

    surface: Surface
    whole: bool
    finest: bool


def shown_part(surface: Surface) -> Shown:
    """Return the finest nested grid of which every point has been evaluated.

    Grids nest by halving: 65 points a side hold 33, those hold 17. Where not even a grid of five
    points a side is complete, the whole grid is shown with holes.

    Args:
        surface: A surface, evaluated in full or in part.

    Returns:
        The part to draw.
    """
    rows, columns = surface.loss.shape
    step = 1
    while min(rows - 1, columns - 1) // step >= LEAST_SIDE - 1:
        if (rows - 1) % step or (columns - 1) % step:
            break
        if surface.evaluated[::step, ::step].all():
            return Shown(_every(surface, step), whole=True, finest=step == 1)
        step *= 2
    holes = np.where(surface.evaluated, surface.loss, np.nan)
    blanks = np.where(surface.evaluated, surface.accuracy, np.nan)
    whole = bool(surface.evaluated.all())
    return Shown(replace(surface, loss=holes, accuracy=blanks), whole=whole, finest=True)


def _every(surface: Surface, step: int) -> Surface:
    if step == 1:
        return surface
    thinned = slice(None, None, step)
    return replace(
        surface,
        x=surface.x[thinned],
        y=surface.y[thinned],
        loss=surface.loss[thinned, thinned],
        accuracy=surface.accuracy[thinned, thinned],
        standard_error=surface.standard_error[thinned, thinned],
        evaluated=surface.evaluated[thinned, thinned],
    )


def thinned(surface: Surface, most: int) -> Surface:
    """Return every second, fourth, … point, so that no side has more than `most`."""
    step = 1
    while max(-(-side // step) for side in surface.loss.shape) > most:
        step *= 2
    return _every(surface, step)


def is_rough(z: NDArray[np.float64]) -> bool:
    """Say whether level lines of a grid would trace its noise, or its holes.

    The measure is the mean absolute Laplacian, as a share of the range. On a smooth surface it
    falls with the square of the spacing, for noise it stays; so does the threshold.

    Args:
        z: `[r, c]` values; what is not finite counts as a hole.

    Returns:
        True if the surface is rough, more than a tenth of it is holes, or it is too small to say.
    """
    finite = np.isfinite(z)
    if min(z.shape) < LEAST_SIDE or finite.mean() < 0.9:
        return True
    spread = float(np.ptp(z[finite]))
    if spread == 0:
        return True
    middle = z[1:-1, 1:-1]
    with np.errstate(invalid="ignore"):
        laplacian = z[:-2, 1:-1] + z[2:, 1:-1] + z[1:-1, :-2] + z[1:-1, 2:] - 4 * middle
    known = np.abs(laplacian[np.isfinite(laplacian)])
    threshold = max(0.05, 30 / (min(z.shape) - 1) ** 2)
    return known.size == 0 or float(known.mean()) / spread > threshold
