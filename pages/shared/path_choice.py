"""The choice of a trained path and its options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import streamlit as st

from merging.schema.cards import paths
from pages.shared import session, words
from pages.shared.option_widget import option_widget, segments


def path_choice(options: Sequence[str], *, key: str) -> str:
    """Let a person choose which kind of path is trained, if any."""
    titles = {"none": "None"} | {name: card.title for name, card in paths.PATH_CARDS.items()}
    chosen = segments(
        "Trained path",
        options,
        default=options[0],
        format_func=lambda name: words.plain(titles[name]),
        key=key,
        bind="query-params",
        help=words.plain(" ".join(f"{c.title}: {c.about}" for c in paths.PATH_CARDS.values()))
        + " Trained on the training examples, with and without alignment.",
    )
    return str(chosen)


def path_options(kind: str) -> None:
    """Draw the options of a kind of path, or of SWAG, from its card."""
    card = paths.SWAG_CARD if kind == paths.SWAG_CARD.name else paths.PATH_CARDS[kind]
    with st.expander(f"Options of {words.plain(card.title)}", icon=":material/tune:"):
        st.caption(words.plain(f"{card.about} {card.reference}"))
        with st.container(horizontal=True):
            for option in fields(card.options):
                option_widget(option, key=session.option_key(card.name, option.name), width=170)
