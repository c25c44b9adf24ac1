"""Two-dimensional slices of the loss surface."""

import streamlit as st

from merging import visualization
from pages.shared import charts, code, controls, jobs, regions, state, summaries
from pages.shared.frame import framed, heading

framed()
heading(
    "Landscape",
    "A flat slice through weight space: every point is a network, its colour is its loss. "
    "B and the aligned B compute the same function, at two places.",
)

choice = controls.surface_choices()
wanted = controls.surface_requests(choice)
if not wanted and choice.kind == "aligned":
    st.info("Choose at least one matching method in the sidebar.", icon=":material/arrow_back:")
found = jobs.follow("landscape", wanted)
samples = jobs.follow("landscape_swag", controls.swag_requests(choice, wanted))
surfaces = summaries.named_surfaces(found, samples)
regions.simplex(jobs.follow("landscape_simplex", controls.simplex_requests(choice)), choice.metric)
if surfaces:
    charts.show(
        visualization.plot_surfaces(
            surfaces,
            metric=choice.metric,
            cap=regions.cap(surfaces) if choice.metric == "loss" else None,
            **charts.look(),
        ),
        key="landscape_surfaces",
        alt=visualization.describe_surfaces(surfaces),
        rows=summaries.surface_rows(surfaces),
    )
    charts.source(state.subject_title(found[0].request.subject), *summaries.surface_facts(surfaces))
    summaries.explain_blanks(surfaces)
    regions.explain_plane(surfaces)
    st.caption(
        "What this does not show: the thousands of other directions. Between two points of the "
        "slice there may be a low path outside it."
    )
    if st.toggle("Show one slice in three dimensions", key="landscape_3d"):
        first = surfaces[0]
        figure = visualization.plot_surface_3d(
            first.surface, method=first.method, metric=choice.metric, **charts.look()
        )
        charts.show(
            figure, key="landscape_solid", alt=visualization.describe_surfaces(surfaces[:1])
        )
code.offer(wanted, key="landscape")
