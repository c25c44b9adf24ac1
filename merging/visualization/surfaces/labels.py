"""Labels on a surface that cover neither one another, nor a model, nor leave the panel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from merging.schema.records.surface import Surface
from merging.visualization.surfaces.panels import Panel

LETTER = 6.6  # pixels, about
LINE = 17


@dataclass(frozen=True)
class Label:
    """Words that belong to a place, at least `gap` pixels away from it."""

    text: str
    x: float
    y: float
    gap: float

    @property
    def half(self) -> NDArray[np.float64]:
        """Half the width and height in pixels."""
        lines = self.text.split("<br>")
        return np.array([max(map(len, lines)) * LETTER + 6, len(lines) * LINE]) / 2


@dataclass(frozen=True, eq=False)
class Box:
    """A part of the panel that is taken, in pixels."""

    middle: NDArray[np.float64]
    half: NDArray[np.float64]

    def overlap(
        self, middles: NDArray[np.float64], half: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the area that boxes at `middles`, `[k, 2]`, share with this one."""
        sides = np.clip(self.half + half - np.abs(middles - self.middle), 0, None)
        return sides.prod(axis=1)


def place_labels(
    labels: Sequence[Label], surface: Surface, panel: Panel
) -> list[tuple[float, float]]:
    """Choose one of sixteen directions for every label, greedily.

    Labels prefer to point away from the middle of all of them, where the paths are.

    Args:
        labels: The labels, most important first.
        surface: The surface they lie on.
        panel: The panel they lie in.

    Returns:
        The shift of every label from its place, in pixels.
    """
    if not labels:
        return []
    scale = panel.pixels * surface.scale / max(float(np.ptp(surface.x)), 1e-12)
    places = np.array([[label.x, label.y] for label in labels]) * scale
    corner = np.array([surface.x[0], surface.y[0]]) / surface.scale * scale
    size = np.array([np.ptp(surface.x), np.ptp(surface.y)]) / surface.scale * scale
    taken = [Box(place, np.full(2, label.gap)) for place, label in zip(places, labels, strict=True)]
    shifts = []
    for label, place in zip(labels, places, strict=True):
        options = _options(label)
        middles = place + options
        covered = sum(box.overlap(middles, label.half) for box in taken)
        over = np.abs(middles - corner - size / 2) + label.half - size / 2
        outside = 40 * np.clip(over, 0, None).sum(axis=1)
        best = options[int(np.argmin(covered + outside - 60 * _outward(options, place, places)))]
        taken.append(Box(place + best, label.half))
        shifts.append((float(best[0]), float(best[1])))
    return shifts


def _options(label: Label) -> NDArray[np.float64]:
    """Return sixteen shifts around a place, as near as the label's box may come."""
    turns = np.arange(16) * np.pi / 8
    square = np.clip(1.5 * np.stack([np.cos(turns), np.sin(turns)], axis=1), -1, 1)
    return square * (label.half + label.gap)


def _outward(
    options: NDArray[np.float64], place: NDArray[np.float64], places: NDArray[np.float64]
) -> NDArray[np.float64]:
    away = place - places.mean(axis=0)
    away = away / max(float(np.linalg.norm(away)), 1e-9)
    return (options / np.linalg.norm(options, axis=1, keepdims=True)) @ away
