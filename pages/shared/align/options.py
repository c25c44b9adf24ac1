"""The form of a matching method's options."""

from __future__ import annotations

from dataclasses import fields

import streamlit as st

from merging.schema.cards import matching
from pages.shared import session, words
from pages.shared.option_widget import option_widget


def method_options() -> None:
    """Draw the options of the chosen methods, from their cards."""
    chosen = [matching.METHOD_CARDS[name] for name in session.chosen_methods()]
    if not chosen:
        return
    with st.expander("Options", icon=":material/tune:"):
        for column, card in zip(st.columns(len(chosen)), chosen, strict=True):
            with column:
                st.markdown(f"**{words.plain(card.title)}**")
                st.caption(words.plain(f"{card.about} {card.reference}"))
                for option in fields(card.options):
                    option_widget(option, key=session.option_key(card.name, option.name))
