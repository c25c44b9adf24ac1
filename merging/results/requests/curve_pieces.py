"""How curves are cut into pieces, and read from them: along lines and along trained paths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from merging.results.compute.entry import Entry
from merging.schema.records.curve import Curve


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


def curve_of(entries: Sequence[Entry]) -> Curve:
    """The curve through the positions that are there."""
    lams, losses, correct = (
        np.concatenate([entry.arrays[name] for entry in entries])
        for name in ("lams", "losses", "correct")
    )
    order = np.argsort(lams)
    losses, correct = losses[order], correct[order]
    return Curve(
        lams[order],
        losses.mean(1, dtype=np.float64),
        correct.mean(1, dtype=np.float64),
        losses,
        correct,
        entries[0].meta["statistics"],
        entries[0].meta["split"],
    )
