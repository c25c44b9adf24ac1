"""How curves are cut into pieces, and read from them: along lines and along trained paths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from merging.results.compute.entry import Entry
from merging.schema.records.curve import Curve, mean_curve


def interleaved(positions: Sequence[float], stride: int, later: int) -> list[list[float]]:
    """Cut positions so that the first piece already spans them all.

    Args:
        positions: Ascending.
        stride: Every how many-th position is in the first piece; the last one always is.
        later: Pieces that the others are dealt to.

    Returns:
        The pieces that have any positions.

    Example:
        >>> interleaved([0, 1, 2, 3, 4, 5], 4, 2)
        [[0, 4, 5], [1, 3], [2]]
    """
    first = sorted({0, len(positions) - 1, *range(0, len(positions), stride)})
    rest = [k for k in range(len(positions)) if k not in first]
    chunks = [first, *(rest[k::later] for k in range(later))]
    return [[positions[k] for k in chunk] for chunk in chunks if chunk]


def curve_entry(curve: Curve) -> Entry:
    """Return a curve as it is stored: the examples' own values, of which its means are taken."""
    arrays: dict[str, np.ndarray] = {
        "lams": curve.lams,
        "losses": curve.example_losses,
        "correct": curve.example_correct,
    }
    return Entry(arrays, {"statistics": curve.statistics, "split": curve.split})


def read_curve(entry: Entry) -> Curve:
    """Return the curve that `curve_entry` wrote."""
    lams, losses, correct = (entry.arrays[name] for name in ("lams", "losses", "correct"))
    meta = entry.meta
    return mean_curve(lams, losses, correct, statistics=meta["statistics"], split=meta["split"])


def joined_curve(curves: Sequence[Curve]) -> Curve:
    """Return the curve through the positions of several."""
    lams, losses, correct = (
        np.concatenate([getattr(curve, name) for curve in curves])
        for name in ("lams", "example_losses", "example_correct")
    )
    order, first = np.argsort(lams), curves[0]
    return mean_curve(
        lams[order],
        losses[order],
        correct[order],
        statistics=first.statistics,
        split=first.split,
    )
