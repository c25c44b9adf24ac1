"""Files to take away: the permutation, the aligned model, the merged model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import streamlit as st

from merging.results import requests
from merging.schema.cards import matching
from pages.shared import as_code, jobs, option_widget, session, words
from pages.shared import statistics as shared_statistics

_WHAT = {
    "permutation": "Permutation (.npz)",
    "aligned": "Aligned model B",
    "merged": "Merged model",
}
_CONTAINERS = {"safetensors": "safetensors", "pt": "PyTorch (.pt)"}


def offer(alignments: Sequence[requests.AlignmentRequest]) -> None:
    """Let a person choose a file, have it written, and download it."""
    st.subheader("Take it away", anchor=False)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.selectbox(
            "Method",
            range(len(alignments)),
            format_func=lambda k: matching.METHOD_CARDS[alignments[k].method].title,
            key="align_file_method",
            width=240,
        )
        what = option_widget.segments(
            "File",
            list(_WHAT),
            default="permutation",
            format_func=_WHAT.__getitem__,
            key="align_file",
            wrap=True,
        )
    lam, statistics = 0.5, "interpolated"
    if what == "merged":
        with st.container(horizontal=True, vertical_alignment="bottom"):
            lam = st.slider("Position λ (0 is A, 1 is B)", 0.0, 1.0, 0.5, 0.05, key="align_lam")
            statistics = shared_statistics.statistics_choice(
                list(shared_statistics.STATISTICS), key="align_statistics"
            )
    request = requests.ExportRequest(
        subject=session.subject(),
        alignment=alignments[chosen or 0],
        what=cast("Any", what),
        lam=lam,
        statistics=cast("Any", statistics),
        **({} if what == "permutation" else _form(str(what))),
    )
    wanted = request.key in session.wanted_files()
    if not wanted:
        st.button(
            "Write the file",
            key="align_write",
            icon=":material/save:",
            on_click=session.want_files,
            args=(request.key,),
        )
        return
    for found in jobs.follow("align_export", [request]):
        file = found.result
        st.download_button(
            words.plain(f"Download {file.name} ({_size(len(file.data))})"),
            file.data,
            file.name,
            key="align_download",
            icon=":material/download:",
        )
        for note in file.notes:
            st.caption(words.plain(note))
        as_code.offer([request], key="align_file")


def _form(what: str) -> dict[str, Any]:
    """Let a person choose how a model is written: its container, and names as uploaded."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        container = option_widget.segments(
            "Format",
            list(_CONTAINERS),
            default="safetensors",
            format_func=_CONTAINERS.__getitem__,
            key="align_container",
        )
        prefix = session.prefix("b" if what == "aligned" else "a")
        if prefix and not st.toggle(
            f"Names with {words.code(prefix)}, as in your file", value=True, key="align_prefix"
        ):
            prefix = ""
    return {"container": container, "prefix": prefix}


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
