"""The symmetry of the chosen models, on the Models page."""

from __future__ import annotations

import streamlit as st

from merging.schema.records.symmetry import SymmetrySummary
from pages.shared import charts, words
from pages.shared.rows import tiny


def symmetry(summary: SymmetrySummary) -> None:
    """Show the groups of a spec, what is fixed and why, and the certificate."""
    columns = st.columns(4)
    units = sum(group.units for group in summary.groups)
    columns[0].metric(
        "Equivalent orderings", words.plain(_orderings(summary.log10_orderings)), border=True
    )
    columns[1].metric("Groups · units", f"{len(summary.groups):d} · {units:,}", border=True)
    columns[2].metric("Parameters that move", f"{summary.share_moved:.2%}", border=True)
    change = tiny(summary.max_relative_difference)
    columns[3].metric("Largest change of outputs", words.plain(change), border=True)
    if summary.certified:
        st.success(
            "Certified: all groups were permuted at random, and the outputs in float64 changed by "
            f"{words.plain(change)} (allowed: {summary.tolerance:.0e}).",
            icon=":material/verified:",
        )
    else:
        st.error("Not certified: permuting the units changes the outputs.", icon=":material/error:")
    if summary.unknown_operators:
        names = ", ".join(summary.unknown_operators)
        said = "There is no rule for these operators, so their axes stay fixed"
        st.warning(words.plain(f"{said}: {names}."))
    rows = [
        {"Group": f"{k + 1} · {g.name}", "Units": g.units, "Occurs on": ", ".join(g.axes)}
        for k, g in enumerate(summary.groups)
    ]
    st.caption("Units of one group may change places among themselves, on all these axes at once.")
    charts.table(rows, key="models_groups")
    with st.expander("What is fixed, and why", icon=":material/lock:"):
        frozen = [
            {"Parameter": f.parameter, "Axis": f.axis, "Size": f.units, "Because": f.reason}
            for f in summary.frozen
        ]
        charts.table(frozen, key="models_frozen")


def _orderings(exponent: float) -> str:
    """Write a number of orderings from its logarithm: exact while it is small."""
    if exponent < 6:
        return f"{round(10**exponent):,}"
    digits = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
    return "10" + f"{exponent:.0f}".translate(digits)
