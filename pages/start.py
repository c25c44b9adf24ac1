"""Start: a finished, real result, and the doors to the rest."""

import streamlit as st

from merging import visualization
from merging.results import requests
from merging.schema.cards import zoo
from pages.shared import charts, jobs
from pages.shared.frame import framed

framed()

FIRST = "mnist-mlp-512"
subject = requests.bundled_subject(FIRST)
aligned = requests.alignment(subject, "weight")
wanted = [requests.CurveRequest(subject), requests.CurveRequest(subject, aligned)]

st.title("Two networks, one basin", anchor=False)
st.markdown(
    "Two networks trained from different seeds look far apart: walk straight from one to the "
    "other and the loss climbs a barrier. Put B's hidden units into A's order, which changes "
    "nothing of what B computes, and the barrier is gone."
)
found = jobs.follow("start", wanted)
curves = [
    visualization.NamedCurve(
        f.request.alignment.method if f.request.alignment else "naive", f.result
    )
    for f in found
]
if len(curves) == len(wanted):
    naive, after = (named.curve for named in curves)
    sizes = f"{zoo.read_card(FIRST)['title']} · {after.examples:,} test images it never saw"
    left, right, third = st.columns(3)
    left.metric("Barrier as trained", f"{naive.barrier():.2f} nats", border=True)
    right.metric("Barrier, units lined up", f"{after.barrier():.2f} nats", border=True)
    third.metric("Accuracy half-way, lined up", f"{after.at(0.5)[1]:.1%}", border=True)
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
        "**Explore a ready pair** \n\nThirteen pairs of networks, some that "
        "align and some that cannot; pick one in the sidebar."
    )
    st.page_link("pages/interpolate.py", label="Loss along the line", icon=":material/show_chart:")
    st.page_link("pages/landscape.py", label="The loss landscape", icon=":material/landscape:")
with doors[1].container(border=True, height="stretch"):
    st.markdown(
        "**Bring two checkpoints** \n\nUpload two files of one architecture; the symmetry "
        "is found and proven, and nothing in them is executed."
    )
    st.page_link("pages/models.py", label="Models", icon=":material/dataset:")
with doors[2].container(border=True, height="stretch"):
    st.markdown(
        "**Line them up** \n\nThree methods side by side, live, with the permutation and "
        "the merged model to take away."
    )
    st.page_link("pages/align.py", label="Align", icon=":material/swap_vert:")
    st.page_link("pages/permutations.py", label="Who plays whom", icon=":material/shuffle:")
with doors[3].container(border=True, height="stretch"):
    st.markdown(
        "**Merge many models** \n\nTwo to twenty, fine-tuned from one base or trained apart: "
        "every rule side by side, and why it works."
    )
    st.page_link("pages/merge.py", label="Merge", icon=":material/merge:")
