"""Curves in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from merging.schema.records.curve import Baseline
from merging.visualization.curves.curve_values import NamedCurve
from merging.visualization.wording import barrier_words, counted, percent, sentence_case

_ABOVE = {
    "endpoints-mean": "the mean of the two end points",
    "linear": "the straight line between the end points",
}


def describe_curves(curves: Sequence[NamedCurve], baseline: Baseline = "endpoints-mean") -> str:
    """Say each curve's barrier and lowest accuracy, and how many points are missing.

    Args:
        curves: What is drawn.
        baseline: What barriers are measured above.

    Returns:
        A few sentences.
    """
    if not curves:
        return "No curves yet, 0 points."
    said = []
    for split in dict.fromkeys(named.curve.split for named in curves):
        chosen = [named for named in curves if named.curve.split == split]
        what = sentence_case(f"{split} loss ({chosen[0].curve.loss_unit})".strip())
        examples = counted(chosen[0].curve.examples, "example")
        said.append(f"{what} from model A to model B over {examples}.")
        said += [_curve_words(named, baseline) for named in chosen]
    return f"{' '.join(said)} Barriers are measured above {_ABOVE[baseline]}."


def _curve_words(named: NamedCurve, baseline: Baseline) -> str:
    curve = named.curve
    inside = (curve.lams >= 0) & (curve.lams <= 1)
    known = curve.accuracy[inside & np.isfinite(curve.accuracy)]
    fall = f", lowest accuracy {percent(float(known.min()))}" if known.size else ""
    lost = int((~np.isfinite(curve.loss)).sum())
    gaps = f"; {lost} of {counted(curve.lams.size, 'point')} not finite" if lost else ""
    return f"{named.title}: {barrier_words(curve.locate_barrier(baseline))}{fall}{gaps}."
