"""The Merge page's reliability diagrams."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from merging import visualization
from pages.shared import charts
from pages.shared.merge import rules as merge_rules
from pages.shared.merge.choice import Choice
from pages.shared.merge.scores import scored


def calibration(choice: Choice, chosen: Sequence[str]) -> None:
    """Show how far confidence can be trusted."""
    rows = scored(choice, merge_rules.fusions(choice, chosen), "merge_calibration")
    known = [row for row in rows if row.score.tasks[0].counts]
    if not known:
        return
    ordered = visualization.sorted_scores(known)
    titles = [row.title for row in ordered]
    first = [row.title for row in ordered if not row.reference][:2]
    first += [row.title for row in ordered if row.score.name in ("joint", "probabilities")]
    picked = st.multiselect(
        "Models", titles, first[:4], max_selections=6, key="merge_calibration_models"
    )
    drawn = [row for row in ordered if row.title in picked]
    if not drawn:
        return
    charts.show(
        visualization.plot_reliability(drawn, **charts.look()),
        key="merge_reliability",
        alt=visualization.describe_reliability(drawn),
    )
    charts.source(choice.title, "all tasks' test examples together", "15 bins of equal width")
