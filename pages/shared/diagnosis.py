"""What the doctor says of two models, in words."""

from __future__ import annotations

import streamlit as st

from merging.records import Diagnosis

_COLLAPSING = "BatchNorm"


def show(found: Diagnosis) -> None:
    """The planted permutation, chance for comparison, and what is odd about the models."""
    columns = st.columns(3)
    columns[0].metric(
        "Planted permutation recovered",
        f"{found.recovered / max(1, found.units):.0%}",
        help=f"A was permuted at random and matched with itself: {found.sweeps} sweeps.",
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
        st.markdown(f"- {line}")


def _lines(found: Diagnosis) -> list[str]:
    lines = []
    if found.recovered < found.units:
        lost = found.units - found.recovered
        lines.append(
            f"{lost:,} units of the planted permutation were not put back. Units with equal "
            "weights cannot be told apart; otherwise weight matching has a hard time here."
        )
    if found.shared_start:
        lines.append(
            f"The weights have a cosine of {found.cosine:.2f} as they are: A and B were trained "
            "from one starting point. They need no alignment, and it may do harm; merge them as "
            "they are."
        )
    else:
        lines.append(
            f"The weights have a cosine of {found.cosine:.3f} as they are: no common start."
        )
    if found.equal_share > 0:
        lines.append(f"{found.equal_share:.1%} of the numbers are equal in both models.")
    if found.matched_cosine < 1.1 * found.null_cosine:
        lines.append(
            "Matching brings these models hardly nearer than chance would: do not expect the "
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
        lines.append("BatchNorm's statistics have to be estimated afresh after merging: RESET.")
    return lines
