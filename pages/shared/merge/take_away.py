"""The Merge page's files to take away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from merging.results import requests
from merging.schema.cards.fusion import table as fusion_table
from pages.shared import as_code, jobs, option_widget, session, words
from pages.shared.merge import rules as merge_rules
from pages.shared.merge.choice import Choice
from pages.shared.merge.scores import _FILES, rule_title, width_words


def cards(chosen: Sequence[str]) -> None:
    """Say what every rule is, what it assumes and when it fails."""
    for name in chosen:
        card = fusion_table.find_card(name)
        with st.container(border=True):
            st.markdown(f"**{words.plain(card.title)}** · {words.plain(card.family)}")
            st.code(card.formula, language=None, wrap_lines=True)
            st.markdown(
                f"**Assumes:** {words.plain(card.assumes)}  \n**Fails:** {words.plain(card.fails)}"
            )
            st.caption(words.plain(card.paper))


def take_away(choice: Choice, chosen: Sequence[str]) -> None:
    """Offer merged models as files."""
    ready = {one.rule: one for one in merge_rules.fusions(choice, chosen)}
    if not ready:
        return
    rules = st.multiselect(
        "Merged by",
        list(ready),
        list(ready)[:1],
        format_func=rule_title,
        # Among other rules the choice is another widget: in this one nothing would be left of it.
        key=f"merge_take_rules_{'_'.join(ready)}",
    )
    what: Any = option_widget.segments(
        "As",
        list(_FILES),
        default="folder",
        format_func=_FILES.__getitem__,
        key="merge_take_what",
    )
    if not rules:
        st.info("Choose at least one rule.", icon=":material/arrow_upward:")
        return
    width_words(choice)
    prefix = choice.prefixes[0] if choice.prefixes else ""
    wanted = [requests.FusionExportRequest(ready[rule], what, prefix) for rule in rules]
    _make(wanted)
    as_code.offer(wanted, key="merge")


def _make(wanted: Sequence[requests.FusionExportRequest]) -> None:
    """Show files that are there or asked for, and a button that asks for the others."""
    asked = session.wanted_files()
    missing = [one for one in wanted if one.key not in asked and jobs.read(one) is None]
    if missing:
        st.button(
            "Make the file" if len(missing) == 1 else f"Make {len(missing):d} files",
            key="merge_take_make",
            icon=":material/build:",
            on_click=session.want_files,
            args=tuple(one.key for one in wanted),
        )
    there = [one for one in wanted if one not in missing]
    for k, found in enumerate(jobs.follow("merge_take", there)):
        if found.request in there and found.complete:
            _hand_over(found.result, key=f"merge_take_file_{k}")


def _hand_over(file: requests.Download, *, key: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.download_button(
            words.plain(f"Download {file.name}"),
            file.data,
            file.name,
            key=key,
            icon=":material/download:",
            on_click="ignore",
        )
        st.caption(words.plain(" ".join(file.notes)), width="content")
