"""What a page shows, as Python and as a command: the same without a browser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from merging.results import as_code, requests
from pages.shared import words


def offer(wanted: Sequence[requests.Request[Any]], *, key: str) -> None:
    """Show how to get the same results without a browser; nothing if there is no code for them.

    Args:
        wanted: The requests behind what the page shows.
        key: The page's name.
    """
    known = [request for request in wanted if as_code.has_code(request)]
    if not known:
        return
    with st.expander("Do the same without a browser", icon=":material/terminal:"):
        request = known[0]
        if len(known) > 1:
            chosen = st.selectbox(
                "Result",
                range(len(known)),
                format_func=lambda k: known[k].title,
                key=f"{key}_code",
            )
            request = known[chosen or 0]
        if note := as_code.note(request):
            st.caption(words.plain(note))
        st.caption("In Python:")
        st.code(as_code.python(request), language="python")
        st.caption("In a shell, in the folder of this app; `--json` prints every number:")
        st.code(as_code.command(request), language="bash", wrap_lines=True)
