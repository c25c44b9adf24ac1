"""Loss and accuracy along the line between the models."""

import streamlit as st

from merging import visualization
from merging.results import requests
from pages.shared import as_code, charts, jobs, session, titles
from pages.shared import curves as shared_curves
from pages.shared.frame import framed, heading
from pages.shared.interpolate import choices, paths

framed()
heading(
    "Interpolate",
    "Walk in a straight line from model A to model B, and look at the network at every step. "
    "A barrier on the way means that the two lie in different basins.",
)

choice = choices.curve_choices()
subject = session.subject()
wanted: list[requests.CurveRequest | requests.PathCurveRequest] = [
    requests.CurveRequest(
        subject=subject,
        alignment=alignment,
        split=split,
        statistics=choice.statistics,
        overshoot=choice.overshoot,
    )
    for alignment in (None, *session.alignments())
    for split in choice.splits
]
wanted += paths.path_curves(choice, (None, *session.alignments()))
found = jobs.follow("interpolate", wanted)
if found:
    curves = shared_curves.named_curves(found)
    charts.show(
        visualization.plot_curves(
            curves, baseline=choice.baseline, log_loss=choice.log_loss, **charts.look()
        ),
        key="interpolate_curves",
        alt=visualization.describe_curves(curves, choice.baseline),
        rows=shared_curves.curve_rows(curves),
    )
    charts.source(
        session.subject_title(found[0].request.subject),
        shared_curves.examples_words(found),
        f"statistics {curves[0].curve.statistics}",
        *titles.methods_words(found),
    )
    st.subheader("Barriers", anchor=False)
    charts.table(shared_curves.barrier_rows(curves), key="interpolate_barriers")
    path_shown = any(paths.is_path(f) for f in found)
    st.caption(
        "A barrier is the most by which the loss exceeds the mean of the two end points, or the "
        "line between them; for accuracy, the most by which it falls short. The band is two "
        "standard errors over the examples. "
        + ("" if path_shown else "What this does not show: any path but the straight one.")
    )
    paths.explain_paths(found, choice.statistics)
as_code.offer(wanted, key="interpolate")
