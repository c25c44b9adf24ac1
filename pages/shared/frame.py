"""The frame around every page: page table, pair and methods in the sidebar, notices."""

from __future__ import annotations

import sys
from pathlib import Path

import streamlit as st

from merging.files import user_function
from merging.schema.cards import matching
from pages.shared import address, jobs, session, words

_PAGES = Path(__file__).resolve().parents[1]
_LOGO = _PAGES.parent / "assets" / "logo.svg"


def main() -> None:
    """Draw the frame and run the page that the address names."""
    user_function.read_arguments(
        sys.argv[1:]
    )  # what stands after `--` of `streamlit run app.py --`
    st.logo(str(_LOGO), size="large")
    page = st.navigation({
        "": [st.Page(_PAGES / "start.py", title="Start", icon=":material/home:", default=True)],
        "Two models": [
            _page("models", "Models", "dataset"),
            _page("align", "Align", "swap_vert"),
        ],
        "What it did": [
            _page("interpolate", "Interpolate", "show_chart"),
            _page("landscape", "Landscape", "landscape"),
            _page("permutations", "Permutations", "shuffle"),
        ],
        "Many models": [_page("merge", "Merge", "merge")],
    })
    st.set_page_config(f"{page.title} · One Basin", page_icon=str(_LOGO), layout="wide")
    with st.sidebar:
        _choices()
    session.write_address()
    session.begin_frame()
    try:
        _notices()
        page.run()
    finally:
        session.end_frame()


def framed() -> None:
    """Make sure that the frame is there: the first line of every page.

    On a fresh server the first deep link runs a page's file without `app.py`; then the frame is
    drawn from here, and it runs the page once more.
    """
    if not session.is_framed():
        main()
        st.stop()


def heading(title: str, about: str) -> None:
    """Draw the title of a page, what it is for, and which pair is looked at."""
    st.title(words.plain(title), anchor=False)
    st.markdown(words.plain(about))
    st.caption(
        f":material/compare_arrows: **{words.plain(session.pair_title(session.pair_name()))}**"
    )


def _page(name: str, title: str, icon: str) -> st.Page:
    return st.Page(_PAGES / f"{name}.py", title=title, icon=f":material/{icon}:")


def _choices() -> None:
    st.selectbox(
        "Pair of models",
        session.pair_names(),
        session.pair_names().index(session.asked().pair),
        format_func=session.pair_title,
        key="pair",
        help="Two networks of one architecture, trained from different seeds.",
    )
    st.pills(
        "Matching methods",
        list(matching.METHOD_CARDS),
        selection_mode="multi",
        default=list(session.asked().methods),
        format_func=lambda name: words.plain(
            matching.METHOD_CARDS[name].title.removesuffix(" matching")
        ),
        key="methods",
        help="How B's units are put into A's order. Compared on every page.",
    )
    st.number_input(
        "Seed",
        0,
        address.MOST_SEED,
        session.asked().seed,
        key="seed",
        help="Everything random in matching and in random directions starts here.",
    )


def _notices() -> None:
    for refused in session.asked().refused:
        st.warning(words.plain(refused), icon=":material/link_off:")
    notice = jobs.store_notice()
    if notice:
        st.warning(words.plain(notice), icon=":material/warning:")
