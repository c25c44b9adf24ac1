"""Start: a finished, real result, and the doors to the rest."""

import streamlit as st

from merging import visualization
from merging.results import requests
from merging.schema.cards import zoo
from pages.shared import charts, jobs, titles, words
from pages.shared.frame import framed

framed()

FIRST = "mnist-mlp-512"
subject = requests.bundled_subject(FIRST)
aligned = requests.alignment(subject, "weight")
wanted = [
    requests.CurveRequest(subject=subject),
    requests.CurveRequest(subject=subject, alignment=aligned),
]

st.title("Two networks, one basin", anchor=False)
st.markdown(
    "Two networks trained from different seeds look far apart: walk straight from one to the "
    "other and the loss climbs a barrier. Put B's hidden units into A's order, which changes "
    "nothing of what B computes, and the barrier is gone."
)
found = jobs.follow("start", wanted)
curves = [
    visualization.NamedCurve(method=titles.method_of(f.request), curve=f.result) for f in found
]
if len(curves) == len(wanted):
    naive, after = (named.curve for named in curves)
    sizes = f"{zoo.read_card(FIRST)['title']} · {after.examples:,} test images it never saw"
    left, right, third = st.columns(3)
    left.metric(
        "Barrier, not aligned", words.plain(f"{naive.barrier():.2f} {naive.loss_unit}"), border=True
    )
    right.metric(
        "Barrier, aligned", words.plain(f"{after.barrier():.2f} {after.loss_unit}"), border=True
    )
    third.metric("Accuracy halfway, aligned", f"{after.at(0.5)[1]:.1%}", border=True)
    charts.show(
        visualization.plot_curves(curves, **charts.look()),
        key="start_curves",
        alt=visualization.describe_curves(curves),
    )
    charts.source(sizes, "weight matching, seed 0", f"{len(after.lams)} positions")

st.subheader("Where to go", anchor=False)
doors = st.columns(4)
with doors[0].container(border=True, height="stretch"):
    st.markdown(
        "**Explore a bundled pair** \n\nThirteen pairs of networks, some that "
        "align and some that cannot; pick one in the sidebar."
    )
    st.page_link("pages/interpolate.py", label="Loss along the line", icon=":material/show_chart:")
    st.page_link("pages/landscape.py", label="The loss landscape", icon=":material/landscape:")
with doors[1].container(border=True, height="stretch"):
    st.markdown(
        "**Upload two checkpoints** \n\nTwo files of one architecture: their symmetries are found "
        "and proven, and nothing in the files is executed."
    )
    st.page_link("pages/models.py", label="Models", icon=":material/dataset:")
with doors[2].container(border=True, height="stretch"):
    st.markdown(
        "**Align them** \n\nThree methods side by side, live, with the permutation and "
        "the merged model to download."
    )
    st.page_link("pages/align.py", label="Align", icon=":material/swap_vert:")
    st.page_link("pages/permutations.py", label="Who plays whom", icon=":material/shuffle:")
with doors[3].container(border=True, height="stretch"):
    st.markdown(
        "**Merge many models** \n\nTwo to twenty, fine-tuned from one base or trained apart: "
        "every rule side by side, and why it works."
    )
    st.page_link("pages/merge.py", label="Merge", icon=":material/merge:")
