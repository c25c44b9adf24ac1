"""Align model B to model A."""

import streamlit as st

from merging import visualization
from pages.shared import as_code, charts, jobs, session
from pages.shared import curves as shared_curves
from pages.shared.align import downloads, options, rows
from pages.shared.frame import framed, heading

framed()
heading(
    "Align",
    "Find the order of B's hidden units that best matches A's. What B computes does not change: "
    "that is checked, in float64, for every permutation found.",
)

options.method_options()
wanted = session.alignments()
if not wanted:
    st.info("Choose at least one matching method in the sidebar.", icon=":material/arrow_back:")
found = jobs.follow("align", wanted)
if found:
    runs = [f.result for f in found]
    charts.show(
        visualization.plot_objectives(runs, **charts.look()),
        key="align_objective",
        alt=visualization.describe_objectives(runs),
        rows=rows.objective_rows(runs),
    )
# What is still shown of another pair is only looked at: its permutations are not for this one.
finished = [f for f in found if f.complete and f.request.subject == session.subject()]
if finished:
    st.subheader("What each method reached", anchor=False)
    curves = jobs.follow("align_curves", shared_curves.curve_requests(f.request for f in finished))
    charts.table(rows.alignment_rows(finished, curves), key="align_results")
    charts.source(
        session.subject_title(found[0].request.subject),
        shared_curves.examples_words(curves) or "no examples",
        "barrier above the mean of the end points",
    )
    st.caption(
        "Restarts: where the other runs of a method ended. Change: the largest relative "
        "change of B's outputs, in float64."
    )
    downloads.offer([f.request for f in finished])
as_code.offer(wanted, key="align")
