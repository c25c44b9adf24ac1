"""The permutation groups on the model's own layers."""

from __future__ import annotations

import streamlit as st

from merging import visualization
from merging.records import SymmetrySummary
from pages.shared import charts

_TALL = 620  # pixels: taller figures scroll


def show(summary: SymmetrySummary) -> None:
    """Draw which axes of which layers every group is on."""
    figure = visualization.plot_groups(summary, **charts.look())
    tall = figure.layout.height > _TALL
    with st.container(height=_TALL if tall else "content", border=tall):
        charts.show(figure, key="models_graph", alt=visualization.describe_groups(summary))
    st.caption(
        "One row per layer, one column per axis: of linear layers and convolutions, axis 0 is what "
        "goes out and axis 1 what comes in. A number and its colour name a group, whose units "
        "change places wherever it stands; grey is fixed. Point at a cell for the reason."
    )
