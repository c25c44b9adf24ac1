"""Where the panels of a figure of surfaces lie: in a row, or one below the other on a phone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from merging.schema.records.surface import Surface

AXIS_ROOM = 52  # pixels for the ticks and the title below a panel
BAR_ROOM = 62  # pixels for a colour bar with its title
TITLE_ROOM = 32
LINE_ROOM = 20  # pixels for a line of the caption below the colour bar
FLAT = 0.5  # panels that are lower than this share of their width are stacked
ROW_PIXELS = 760  # what a laptop leaves beside the sidebar; wider screens leave room at the sides


@dataclass(frozen=True)
class Panel:
    """Where one surface lies in the figure: its axes, its domains, its width in pixels."""

    index: int
    x_domain: tuple[float, float]
    y_domain: tuple[float, float]
    pixels: float

    @property
    def suffix(self) -> str:
        """What Plotly appends to `x`, `y` and `coloraxis` for this panel."""
        return "" if self.index == 0 else str(self.index + 1)


@dataclass(frozen=True)
class Sheet:
    """All panels of a figure, its height and margins, and how wide a shared colour bar is."""

    panels: tuple[Panel, ...]
    height: int
    margin: dict[str, int]
    bar_domain: tuple[float, float]

    @property
    def inner(self) -> int:
        """Height between the margins, in pixels."""
        return self.height - self.margin["t"] - self.margin["b"]


def lay_out(surfaces: Sequence[Surface], shared: bool, compact: bool) -> Sheet:
    """Lay out one panel per surface, as high as the surfaces ask for at equal aspect.

    Flat ones are stacked: side by side they would be too low to see.

    Args:
        surfaces: What is drawn.
        shared: Whether one colour bar serves all panels.
        compact: Whether the panels are stacked.

    Returns:
        The sheet.
    """
    ratios = [float(np.ptp(grid.y) / max(np.ptp(grid.x), 1e-12)) for grid in surfaces]
    ratio = max(ratios, default=1.0)
    below = AXIS_ROOM + BAR_ROOM
    if compact:
        high = float(np.clip(290 * ratio, 90 if ratio < FLAT else 160, 420))
        gap = AXIS_ROOM + TITLE_ROOM + (0 if shared else BAR_ROOM)
        margin = {"l": 58, "r": 12, "t": TITLE_ROOM, "b": below}
        return _stacked(len(surfaces), high, gap, margin, 290)
    margin = {"l": 66, "r": 20, "t": TITLE_ROOM + 4, "b": below}
    if ratio < FLAT and len(surfaces) > 1:
        high = float(np.clip(0.8 * ROW_PIXELS * ratio, 160, 320))
        gap = AXIS_ROOM + TITLE_ROOM + (0 if shared else BAR_ROOM)
        return _stacked(len(surfaces), high, gap, margin, high / max(ratio, 1e-6))
    return _in_a_row(len(surfaces), ratio, margin)


def _stacked(count: int, high: float, gap: float, margin: dict[str, int], pixels: float) -> Sheet:
    inner = count * high + max(count - 1, 0) * gap
    tops = [1 - k * (high + gap) / max(inner, 1) for k in range(count)]
    panels = [
        Panel(
            index=k,
            x_domain=(0.0, 1.0),
            y_domain=(max(top - high / inner, 0.0), top),
            pixels=pixels,
        )
        for k, top in enumerate(tops)
    ]
    return Sheet(
        panels=tuple(panels),
        height=round(inner) + margin["t"] + margin["b"],
        margin=margin,
        bar_domain=(0.0, 1.0),
    )


def _in_a_row(count: int, ratio: float, margin: dict[str, int]) -> Sheet:
    gap = 0.06
    share = (1 - gap * (count - 1)) / max(count, 1)
    lefts = [k * (share + gap) for k in range(count)]
    high = float(np.clip(ROW_PIXELS * share * ratio, 180, 520))
    panels = [
        Panel(
            index=k,
            x_domain=(left, min(left + share, 1.0)),
            y_domain=(0.0, 1.0),
            pixels=min(ROW_PIXELS * share, high / ratio),
        )
        for k, left in enumerate(lefts)
    ]
    return Sheet(
        panels=tuple(panels),
        height=round(high) + margin["t"] + margin["b"],
        margin=margin,
        bar_domain=(0.25, 0.75),
    )
