"""How well the chosen models and data fit, on the Models page."""

from __future__ import annotations

import streamlit as st

from merging.results import requests
from pages.shared import charts, words


def fit(rows: list[requests.TensorRow], *, key: str) -> bool:
    """Say which tensors of two checkpoints fit, with a table; whether all of them do."""
    rows = sorted(rows, key=lambda row: (row.verdict != requests.Verdict.DOES_NOT_FIT, row.name))
    wrong = [row for row in rows if row.verdict == requests.Verdict.DOES_NOT_FIT]
    equal = [row for row in rows if row.verdict == requests.Verdict.EQUAL]
    if wrong:
        st.error(
            words.plain(
                f"{len(wrong)} of {len(rows)} tensors do not fit, the first is {wrong[0].name!r}: "
                f"A has {wrong[0].shape_a}, B has {wrong[0].shape_b}. Both models must have "
                "the same architecture, widths and number types."
            ),
            icon=":material/error:",
        )
    elif len(equal) == len(rows):
        st.warning("Both models are identical: there is nothing to align.", icon=":material/info:")
    else:
        st.caption(f"All {len(rows):,} tensors fit; {len(equal):,} have equal values.")
    with st.expander("Tensor by tensor", icon=":material/table:", expanded=bool(wrong)):
        table = [
            {"Tensor": r.name, "Model A": r.shape_a, "Model B": r.shape_b, "Verdict": r.verdict}
            for r in rows
        ]
        charts.table(table, key=key)
    return not wrong
