"""Several models made into one, by every rule that fits them."""

import streamlit as st

from pages.shared import option_widget
from pages.shared.frame import framed
from pages.shared.merge import (
    calibration,
    choose,
    coefficients,
    mixtures,
    reasons,
    rules,
    scores,
    take_away,
)

framed()
st.title("Merge", anchor=False)
st.markdown(
    "Make one network out of several by combining their weights, and see how much it still knows "
    "of what each of them learned."
)

choice = choose.choose()
if choice is None:
    st.stop()
chosen = rules.choose_rules(choice)
view = option_widget.segments(
    "Look at",
    ["Rules", "Coefficients", "Shares", "Confidence", "Why", "What they do", "Take away"],
    default="Rules",
    key="merge_view",
    label_visibility="collapsed",
    bind="query-params",
    wrap=True,
)
if not choice.family.tasks and view not in ("What they do", "Take away"):
    st.info("These models were uploaded without examples, so merged models cannot be evaluated.")
elif view == "Shares":
    mixtures.mixtures(choice)
elif view == "Why":
    reasons.reasons(choice)
elif not chosen:
    st.stop()
elif view == "Rules":
    scores.compare(choice, chosen)
elif view == "Coefficients":
    coefficients.coefficients(choice, chosen)
elif view == "Confidence":
    calibration.calibration(choice, chosen)
elif view == "What they do":
    take_away.cards(chosen)
else:
    take_away.take_away(choice, chosen)
