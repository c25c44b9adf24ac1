"""Loss and accuracy along the line between the models."""

import streamlit as st

from merging import requests, visualization
from pages.shared import charts, code, controls, jobs, regions, state, summaries
from pages.shared.frame import framed, heading

framed()
heading(
    "Interpolate",
    "Walk in a straight line from model A to model B, and look at the network at every step. "
    "A barrier on the way says that the two lie in different basins.",
)

choice = controls.curve_choices()
subject = state.subject()
wanted: list[requests.CurveRequest | requests.PathCurveRequest] = [
    requests.CurveRequest(subject, alignment, split, choice.statistics, overshoot=choice.overshoot)
    for alignment in (None, *state.alignments())
    for split in choice.splits
]
wanted += regions.path_curves(choice, (None, *state.alignments()))
found = jobs.follow("interpolate", wanted)
if found:
    curves = summaries.named_curves(found)
    charts.show(
        visualization.plot_curves(
            curves, baseline=choice.baseline, log_loss=choice.log_loss, **charts.look()
        ),
        key="interpolate_curves",
        alt=visualization.describe_curves(curves, choice.baseline),
        rows=summaries.curve_rows(curves),
    )
    charts.source(
        state.subject_title(found[0].request.subject),
        summaries.examples_words(found),
        f"statistics {curves[0].curve.statistics}",
        *summaries.methods_words(found),
    )
    st.subheader("Barriers", anchor=False)
    charts.table(summaries.barrier_rows(curves), key="interpolate_barriers")
    path_shown = any(regions.is_path(f) for f in found)
    st.caption(
        "A barrier is the most by which the loss exceeds the mean of the two end points, or the "
        "line between them; for accuracy, the most by which it falls short. The band is two "
        "standard errors over the examples. "
        + ("" if path_shown else "What this does not show: any path but the straight one.")
    )
    regions.explain_paths(found, choice.statistics)
code.offer(wanted, key="interpolate")
