"""What the doctor says of two models, in words."""

from __future__ import annotations

import numpy as np
import streamlit as st

from merging.schema.records.diagnosis import Diagnosis, Forecast
from pages.shared import words

_COLLAPSING = "BatchNorm"
_BIG = 2e9  # bytes: about what a worker has
_COMMON_START = (
    "The weights have a cosine of {:.2f} without alignment: A and B were trained from one starting "
    "point. They need no alignment, and it may do harm. Merge them directly: by a weighted mean, "
    "TIES or task arithmetic."
)


def before(found: Forecast) -> None:
    """Show what matching will take on this machine, and warnings about the numbers' types."""
    columns = st.columns(3)
    columns[0].metric(
        "Weight matching, about",
        words.plain(_duration(found.match_seconds)),
        help=(
            f"Ten sweeps in each of three runs over {found.groups:,} groups, the largest of "
            f"{found.largest_group:,} units; {words.plain(_duration(found.sweep_seconds))} per "
            "sweep. Estimated from one assignment problem and one product of matrices, timed on "
            "this machine just now."
        ),
        border=True,
    )
    columns[1].metric(
        "Memory for it",
        words.plain(_memory(found.model_bytes + found.similarity_bytes)),
        help=(
            f"{words.plain(_memory(found.model_bytes))} for both models, "
            f"{words.plain(_memory(found.similarity_bytes))} for the similarities of their units."
        ),
        border=True,
    )
    nothing = np.isnan(found.points_per_second)
    timed = (
        f"On {found.examples:,} test examples, from one evaluation timed just now. A curve has 25 "
        "points, a surface of 33 × 33 has 1,089."
    )
    columns[2].metric(
        "Points of a curve per second",
        "–" if nothing else f"{found.points_per_second:.3g}",
        help="Without examples nothing can be evaluated." if nothing else words.plain(timed),
        border=True,
    )
    if found.shared_start:
        st.warning(words.plain(_COMMON_START.format(found.cosine)), icon=":material/call_merge:")
    if found.model_bytes + found.similarity_bytes > _BIG:
        st.warning("This may be more memory than a worker has.", icon=":material/memory:")
    for line in found.warnings:
        st.warning(words.plain(line), icon=":material/straighten:")
    if not found.warnings:
        st.caption(
            "The types of the numbers are usual ones: A has "
            f"{words.plain(', '.join(found.dtypes_a))}, B has "
            f"{words.plain(', '.join(found.dtypes_b))}."
        )


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{max(1, 1000 * seconds):.0f} ms"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.0f} h"


def _memory(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, count / 1e6):.0f} MB"


def show(found: Diagnosis) -> None:
    """Show the planted permutation, chance for comparison, and what stands out."""
    columns = st.columns(3)
    columns[0].metric(
        "Planted permutation recovered",
        f"{found.recovered / max(1, found.units):.0%}",
        help=f"A was permuted at random and matched with itself: {found.sweeps:,} sweeps.",
        border=True,
    )
    columns[1].metric("A and matched B, cosine", f"{found.matched_cosine:.3f}", border=True)
    columns[2].metric(
        "A and a shuffled B, cosine",
        f"{found.null_cosine:.3f}",
        help="What matching reaches by chance: B's weights, each tensor in a random order.",
        border=True,
    )
    for line in _lines(found):
        st.markdown(f"- {words.plain(line)}")


def _lines(found: Diagnosis) -> list[str]:
    lines = []
    if found.recovered < found.units:
        lost = found.units - found.recovered
        lines.append(
            f"{lost:,} units of the planted permutation were not put back. Units with equal "
            "weights cannot be told apart; if there are none, weight matching struggles with these "
            "models."
        )
    if found.shared_start:
        lines.append(_COMMON_START.format(found.cosine))
    else:
        lines.append(
            f"The weights have a cosine of {found.cosine:.3f} without alignment: the models do not "
            "share a starting point."
        )
    if found.equal_share > 0:
        lines.append(f"{found.equal_share:.1%} of the numbers are equal in both models.")
    if found.matched_cosine < 1.1 * found.null_cosine:
        lines.append(
            "Matching makes these models barely more alike than chance would: do not expect the "
            "barrier to fall."
        )
    for letter, dead in (("A", found.dead_a), ("B", found.dead_b)):
        if dead:
            lines.append(
                f"{dead:,} units of {letter} are dead: all their weights on one side are 0."
            )
    if found.norms:
        lines.append(f"Norms: {', '.join(found.norms)}.")
    if any(_COLLAPSING in norm for norm in found.norms):
        lines.append("BatchNorm's running statistics must be re-estimated after merging (RESET).")
    return lines
