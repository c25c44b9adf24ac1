"""Two-dimensional slices of the loss surface."""

import streamlit as st

from merging import visualization
from pages.shared import as_code, charts, jobs, session
from pages.shared.frame import framed, heading
from pages.shared.landscape import choices, planes, requests, rows, simplex

framed()
heading(
    "Landscape",
    "A flat slice through weight space: every point is a network, its colour is its loss. "
    "B and the aligned B compute the same function, in two places.",
)

choice = choices.surface_choices()
wanted = requests.surface_requests(choice)
if not wanted and choice.kind == "aligned":
    st.info("Choose at least one matching method in the sidebar.", icon=":material/arrow_back:")
found = jobs.follow("landscape", wanted)
samples = jobs.follow("landscape_swag", requests.swag_requests(choice, wanted))
surfaces = rows.named_surfaces(found, samples)
simplex.simplex(jobs.follow("landscape_simplex", requests.simplex_requests(choice)), choice.metric)
if surfaces:
    charts.show(
        visualization.plot_surfaces(
            surfaces,
            metric=choice.metric,
            cap=planes.cap(surfaces) if choice.metric == "loss" else None,
            **charts.look(),
        ),
        key="landscape_surfaces",
        alt=visualization.describe_surfaces(surfaces),
        rows=rows.surface_rows(surfaces),
    )
    charts.source(session.subject_title(found[0].request.subject), *rows.surface_facts(surfaces))
    rows.explain_blanks(surfaces)
    planes.explain_plane(surfaces)
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
as_code.offer(wanted, key="landscape")
