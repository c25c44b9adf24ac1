"""Several models made into one, by every rule that fits them."""

import streamlit as st

from pages.shared import controls, merge_choices, merge_reasons, merge_views
from pages.shared.frame import framed

framed()
st.title("Merge", anchor=False)
st.markdown(
    "Make one network of several by working on their weights, and see what it still knows of "
    "what each of them learned."
)

choice = merge_choices.choose()
if choice is None:
    st.stop()
chosen = merge_choices.choose_rules(choice)
view = controls.segments(
    "Look at",
    ["Rules", "Coefficients", "Shares", "Confidence", "Why", "What they do", "Take away"],
    default="Rules",
    key="merge_view",
    label_visibility="collapsed",
    bind="query-params",
    wrap=True,
)
if not choice.family.tasks and view not in ("What they do", "Take away"):
    st.info("These models came without examples, so merged ones cannot be judged.")
elif view == "Shares":
    merge_views.mixtures(choice)
elif view == "Why":
    merge_reasons.reasons(choice)
elif not chosen:
    st.stop()
elif view == "Rules":
    merge_views.compare(choice, chosen)
elif view == "Coefficients":
    merge_views.coefficients(choice, chosen)
elif view == "Confidence":
    merge_views.calibration(choice, chosen)
elif view == "What they do":
    merge_views.cards(chosen)
else:
    merge_views.take_away(choice, chosen)
