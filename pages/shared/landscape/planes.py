"""What a person must know of the plane that is shown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import streamlit as st

from merging import visualization
from merging.schema.cards.titles import aligned_title
from pages.shared import words


def cap(surfaces: Sequence[visualization.NamedSurface]) -> float | None:
    """Return the loss beyond which colours do not change on planes with a path, else None.

    A bend's direction is often a steep one, and its far heights would leave no colours for the
    line and the path: colours end at three times the highest loss of the lines.
    """
    highest = []
    for named in surfaces:
        grid = named.surface
        if not grid.paths:
            return None
        line = grid.loss[np.abs(grid.y).argmin(), (grid.x >= 0) & (grid.x <= grid.scale)]
        highest += line[np.isfinite(line)].tolist()
    return 3 * max(highest) if highest else None


def explain_plane(surfaces: Sequence[visualization.NamedSurface]) -> None:
    """Say whether the paths and the samples on some planes lie in them, and what they show."""
    lines, close = [], False
    for named in surfaces:
        scale = named.surface.scale
        for path in named.surface.paths:
            off = float(path.residual.max()) / scale
            if off > 1e-3:
                lines.append(
                    f"{named.title}: the path leaves the plane by up to {off:.3f} ‖B − A‖. The "
                    "dotted line is its projection; its own loss is not that of the plane."
                )
        for samples in named.samples:
            off = float(np.median([point.residual for point in samples.points])) / scale
            spread = np.ptp([(point.x, point.y) for point in samples.points], axis=0).max() / scale
            close = close or bool(spread < _SEEN)
            lines.append(
                f"{named.title}: {len(samples.points)} SWAG samples around "
                f"{_around(samples.around)} (diamonds, in the colour of their own loss: "
                f"{samples.loss.min():.3f} to {samples.loss.max():.3f} {samples.loss_unit}) lie "
                f"about {off:.3f} ‖B − A‖ off the plane; from {samples.snapshots} snapshots of "
                f"SGD, statistics {samples.statistics}."
            )
    if any(named.surface.paths for named in surfaces):
        lines.append(
            "The bend was trained on the training examples; that the plane is low around it says "
            "nothing about other planes."
        )
    if close:
        lines.append(_TOO_CLOSE)
    for line in lines:
        st.caption(words.plain(line))


_SEEN = 0.02  # of the distance from A to B: about a marker


_TOO_CLOSE = (
    "Where the training loss is almost zero, SGD hardly moves: samples then lie on their model's "
    "mark. A larger step size spreads them."
)


def _around(name: str) -> str:
    return name if name in ("A", "B") else aligned_title()
