"""Surfaces in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from merging.schema.cards.paths import PATH_CARDS
from merging.schema.records.surface import PlanePath, Surface
from merging.schema.records.swag import SwagSamples
from merging.visualization.surfaces.grid import shown_part
from merging.visualization.surfaces.models_on_plane import marks
from merging.visualization.surfaces.surfaces import NamedSurface
from merging.visualization.wording import counted


def describe_surfaces(surfaces: Sequence[NamedSurface]) -> str:
    """Say the range of each surface, the loss at its models, and what is missing.

    Args:
        surfaces: What is drawn.

    Returns:
        A few sentences, at least one per surface.
    """
    if not surfaces:
        return "No surfaces yet, 0 points."
    return " ".join(_surface_words(named) for named in surfaces)


def _surface_words(named: NamedSurface) -> str:
    part = shown_part(named.surface)
    grid = part.surface
    rows, columns = grid.loss.shape
    known = grid.loss[grid.evaluated & np.isfinite(grid.loss)]
    what = f"{grid.split} loss".strip()
    unit = grid.loss_unit
    span = f"from {known.min():.3g} to {known.max():.3g} {unit}" if known.size else "unknown so far"
    said = [f"{named.title}: {what} on {rows} × {columns} points of a plane, {span}."]
    if not part.finest or not part.whole:
        full = " × ".join(map(str, named.surface.loss.shape))
        done = int(named.surface.evaluated.sum())
        said.append(f"Still being evaluated: {counted(done, 'point')} of {full} so far.")
    places = [_place_words(named, grid, k) for k in range(len(grid.points))]
    if places:
        said.append(f"{'; '.join(places)}.")
    said += [_path_words(path, grid.scale) for path in grid.paths]
    said += [_sample_words(samples, grid.scale) for samples in named.samples]
    if grid.non_finite:
        said.append(f"{counted(grid.non_finite, 'point')} not finite, left blank.")
    return " ".join(said)


def _path_words(path: PlanePath, scale: float) -> str:
    off = float(path.residual.max()) / scale
    words = f"at most {off:.3f} off the plane" if off > 1e-3 else "in the plane"
    return f"A trained path ({PATH_CARDS[path.kind].title}) is drawn, {words}."


def _sample_words(samples: SwagSamples, scale: float) -> str:
    off = np.median([point.residual for point in samples.points]) / scale
    return (
        f"{counted(len(samples.points), 'SWAG sample')} around {samples.around}: loss from "
        f"{samples.loss.min():.3g} to {samples.loss.max():.3g} {samples.loss_unit}, about "
        f"{off:.2f} off the plane."
    )


def _place_words(named: NamedSurface, grid: Surface, k: int) -> str:
    mark, point = marks(grid, named.method)[k], grid.points[k]
    if mark.off_plane:
        return f"{mark.label} lies {mark.residual:.2f} off the plane"
    row = int(np.argmin(np.abs(grid.y - point.y)))
    column = int(np.argmin(np.abs(grid.x - point.x)))
    loss = grid.loss[row, column]
    value = f"{loss:.3g}" if np.isfinite(loss) else "unknown"
    return f"{mark.label} at ({mark.x:.2f}, {mark.y:.2f}), loss about {value}"
