"""The permutations themselves: who plays whom, and how sure that is."""

import streamlit as st

from merging import visualization
from merging.results import requests
from pages.shared import charts, jobs, session, titles, words
from pages.shared.frame import framed, heading
from pages.shared.permutations import choices
from pages.shared.permutations import rows as permutations_rows

framed()
heading(
    "Permutations",
    "Unit by unit: which unit of B plays which unit of A, how alike they are, and what the "
    "reordering does to every layer.",
)

alignment = choices.one_alignment(key="permutations")
if alignment is None:
    st.info("Choose at least one matching method in the sidebar.", icon=":material/arrow_back:")
    st.stop()
found = jobs.follow("permutations", [requests.UnitsRequest(session.subject(), alignment)])
if found:
    units = choices.one_group(found[0].result, key="permutations")
    order = choices.unit_order(key="permutations")
    permutations_rows.unit_metrics(units)
    look = {**charts.look(), "compact": True}
    left, right = st.columns(2)
    with left:
        charts.show(
            visualization.plot_permutation(units, order=order, **look),
            key="permutations_dots",
            alt=visualization.describe_permutation(units),
        )
        st.caption(words.plain(permutations_rows.order_words(order)))
    with right:
        charts.show(
            visualization.plot_cycles(units, **look),
            key="permutations_cycles",
            alt=visualization.describe_cycles(units),
        )
        charts.show(
            visualization.plot_margins(units, **look),
            key="permutations_margins",
            alt=visualization.describe_margins(units),
        )
    charts.show(
        visualization.plot_similarity(units, **charts.look()),
        key="permutations_similarity",
        alt=visualization.describe_similarity(units),
        rows=permutations_rows.unit_rows(units),
    )
    request = found[0].request
    charts.source(session.subject_title(request.subject), titles.alignment_words(request.alignment))

st.subheader("Layer by layer", anchor=False)
quantity = choices.layer_quantity(key="permutations")
layers = jobs.follow("permutations_layers", [requests.LayersRequest(session.subject(), alignment)])
if layers:
    rows, method = layers[0].result, layers[0].request.alignment.method
    charts.show(
        visualization.plot_layers(rows, quantity=quantity, method=method, **charts.look()),
        key="permutations_bars",
        alt=visualization.describe_layers(rows, quantity=quantity, method=method),
        rows=permutations_rows.layer_rows(rows),
    )
    charts.source(
        session.subject_title(layers[0].request.subject),
        titles.alignment_words(layers[0].request.alignment),
        f"{requests.LAYER_EXAMPLES:,} test examples",
    )
