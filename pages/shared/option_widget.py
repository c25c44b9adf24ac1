"""Controls that several pages share, and the choices that they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import Field
from typing import Any, Literal

import streamlit as st

from pages.shared import words


def segments(label: str, options: Sequence[Any], *, default: Any, **given: Any) -> Any:
    """Offer options side by side: one of them is always chosen, whatever an address says.

    Args:
        label: What is chosen.
        options: The options.
        default: The one that is chosen first.
        given: More of Streamlit's own arguments.

    Returns:
        The chosen option.
    """
    chosen = st.segmented_control(
        words.plain(label), options, default=default, required=True, **given
    )
    return default if chosen is None else chosen  # `?key=` empties even what is required


def option_widget(
    option: Field[Any], *, key: str, width: int | Literal["stretch"] = "stretch"
) -> None:
    """Draw a widget for one option of a method or a rule, made of the option's own metadata."""
    meta = option.metadata
    if "choices" in meta:
        choices = list(meta["choices"])
        st.selectbox(
            words.plain(meta["label"]),
            choices,
            choices.index(option.default),
            key=key,
            persist_state="session",
        )
        return
    default: Any = option.default
    kind: Any = type(default)
    st.number_input(
        words.plain(meta["label"]),
        kind(meta["min"]),
        kind(meta["max"]),
        default,
        format=None if kind is int else "%g",
        key=key,
        persist_state="session",
        width=width,
    )
