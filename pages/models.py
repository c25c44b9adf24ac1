"""Choose two models, bundled or uploaded, and see what they are made of."""

import streamlit as st

from merging.results import requests
from pages.shared import charts, jobs, option_widget, session
from pages.shared.frame import framed, heading
from pages.shared.models import diagnosis, fit, groups, pair_card, symmetry, upload_form

framed()
heading(
    "Models",
    "Two networks of one architecture. Choose a bundled pair in the sidebar, or upload your own.",
)

where = option_widget.segments(
    "Where the models come from",
    ["Bundled pair", "Your checkpoints"],
    default="Bundled pair",
    key="models_where",
    bind="query-params",
)
if where == "Your checkpoints":
    upload_form.form()
else:
    pair_card.pair_card(session.pair_name())

subject = session.subject()
st.subheader("Each model by itself", anchor=False)
if not subject.data:
    st.caption(
        "They were uploaded without examples, so neither can be evaluated. Weight matching needs "
        "none."
    )
else:
    for found in jobs.follow("models_ends", [requests.EndPointsRequest(subject)]):
        charts.table(pair_card.end_point_rows(found.result), key="models_ends")

st.subheader("What may be permuted", anchor=False)
for found in jobs.follow(
    "models_symmetry", [requests.SymmetryRequest(subject.config, subject.spec)]
):
    symmetry.symmetry(found.result)
    groups.show(found.result)
    groups.choose(found.result)

st.subheader("What fits", anchor=False)
for found in jobs.follow("models_fit", [requests.FitRequest(subject.model_a, subject.model_b)]):
    fit.fit(found.result, key="models_tensors")

st.subheader("Before you match", anchor=False)
# A bundled pair has no surprises, and what it takes depends on the machine: only when asked for.
forecast = requests.ForecastRequest(subject)
for found in jobs.follow("models_forecast", [forecast], start=session.is_uploaded()):
    diagnosis.before(found.result)
st.caption(
    "The examination plants a known permutation and tries to recover it, and measures what chance "
    "alone would give. It runs matching three times."
)
if st.toggle("Examine these two", key="models_examine", bind="query-params"):
    for found in jobs.follow("models_doctor", [requests.DiagnosisRequest(subject)]):
        diagnosis.show(found.result)
