"""What the Permutations page lets a person choose."""

from __future__ import annotations

from typing import cast

import streamlit as st

from merging.results import requests
from merging.schema.cards import matching
from merging.schema.records.alignment import GroupUnits
from merging.visualization.permutations.layers import Quantity
from merging.visualization.permutations.permutation import Order
from pages.shared import session, words
from pages.shared.option_widget import segments

QUANTITIES = {
    "distance": "L2 distance",
    "cosine": "Cosine",
    "barrier": "Barrier of the layer alone",
    "variance": "Variance halfway",
}


def one_alignment(*, key: str) -> requests.AlignmentRequest | None:
    """Let a person pick one of the chosen methods; None if none is chosen."""
    chosen = session.chosen_methods()
    if not chosen:
        return None
    method = segments(
        "Method",
        chosen,
        default=chosen[0],
        format_func=lambda name: words.plain(matching.METHOD_CARDS[name].title),
        key=f"{key}_method",
    )
    return session.alignment(method)


def one_group(units: list[GroupUnits], *, key: str) -> GroupUnits:
    """Let a person choose one permutation group."""
    chosen = st.selectbox(
        "Permutation group",
        range(len(units)),
        format_func=lambda k: f"{units[k].group} · {_how_many(units[k])}",
        key=f"{key}_group",
        help="Named after the first parameter axis that it occurs on. Of a group that is nested in "
        "another, such as the units of a head, all units are shown side by side: 4 × 16 are four "
        "heads of 16 units, each with an order of its own.",
    )
    return units[chosen or 0]


def _how_many(units: GroupUnits) -> str:
    size = units.permutation.size
    times = "" if units.run == size else f"{size // units.run} × "
    return f"{times}{units.run} units"


def unit_order(*, key: str) -> Order:
    """Let a person choose how the dots are sorted."""
    labels = {"index": "By index", "match": "By match", "cycle": "By cycle"}
    chosen = segments(
        "Sort the units",
        list(labels),
        default="index",
        format_func=lambda name: words.plain(labels[name]),
        key=f"{key}_order",
        bind="query-params",
    )
    return cast("Order", chosen)


def layer_quantity(*, key: str) -> Quantity:
    """Let a person choose what is compared layer by layer."""
    chosen = segments(
        "Compare",
        list(QUANTITIES),
        default="distance",
        format_func=QUANTITIES.__getitem__,
        key=f"{key}_quantity",
        bind="query-params",
    )
    return cast("Quantity", chosen)
