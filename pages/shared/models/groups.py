"""The permutation groups on the model's own layers."""

from __future__ import annotations

import streamlit as st

from merging import visualization
from merging.results import requests
from merging.schema.records.symmetry import SymmetrySummary
from pages.shared import charts, jobs, session, uploads

_TALL = 760  # pixels: taller figures scroll


def show(summary: SymmetrySummary) -> None:
    """Draw which axes of which layers every group is on."""
    figure = visualization.plot_groups(summary, **charts.look())
    tall = figure.layout.height > _TALL
    with st.container(height=_TALL if tall else "content", border=tall):
        charts.show(figure, key="models_graph", alt=visualization.describe_groups(summary))
    st.caption(
        "One row per layer, one column per axis: in linear layers and convolutions, axis 0 is the "
        "output and axis 1 the input. A number and its colour name a group, whose units change "
        "places together wherever it appears; grey axes are fixed. Point at a cell for the reason."
    )


def choose(summary: SymmetrySummary) -> None:
    """Let a person freeze groups, or upload a spec; it is proven before it is used.

    Args:
        summary: The spec that is in use.
    """
    subject = session.subject()
    if subject.spec:
        st.info(
            "This is a permutation spec that you chose. All pages use it.", icon=":material/rule:"
        )
        st.button(
            "Use the derived spec again",
            key="models_spec_back",
            icon=":material/undo:",
            on_click=session.choose_spec,
            args=(subject.config, ""),
        )
    st.download_button(
        "Download the spec (JSON)",
        summary.spec + "\n",
        "one-basin-spec.json",
        "application/json",
        key="models_spec_download",
        icon=":material/download:",
    )
    with st.expander("Freeze groups, or upload your own spec", icon=":material/rule:"):
        wanted = _wanted(subject.config)
        if wanted is None:
            return
        for found in jobs.follow("models_spec", [wanted]):
            if found.request == wanted:
                _offer(found.result, subject)


def _wanted(config: str) -> requests.SpecRequest | None:
    derived = jobs.read(requests.SymmetryRequest(config))
    names = [group.name for group in derived.groups] if derived is not None else []
    upload = uploads.upload(
        "A spec as JSON: `{parameter: [group or null per axis]}`", [".json"], "models_file_spec"
    )
    if upload is not None:
        return requests.SpecRequest(config, upload[0])
    frozen = st.multiselect(
        "Groups to freeze",
        names,
        format_func=lambda name: f"{names.index(name) + 1} · {name}",
        key="models_freeze",
        help="Their units stay where they are. The numbers are those of the figure.",
    )
    return requests.SpecRequest(config, frozen=tuple(frozen)) if frozen else None


def _offer(found: requests.ChosenSpec, subject: requests.Subject) -> None:
    st.success(
        f"Certified: {found.groups:,} groups, {found.units:,} units.", icon=":material/verified:"
    )
    if found.fingerprint == subject.spec:
        st.caption("This spec is in use.")
        return
    st.button(
        "Use this spec on all pages",
        key="models_spec_use",
        icon=":material/check:",
        on_click=session.choose_spec,
        args=(subject.config, found.fingerprint),
    )
