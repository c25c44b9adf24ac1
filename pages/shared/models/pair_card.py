"""What the Models page says of a pair."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from merging.schema.cards import zoo
from merging.schema.records.diagnosis import EndPoint
from pages.shared import session, words
from pages.shared.rows import Row


def pair_card(name: str) -> None:
    """Say what a bundled pair is and how it was trained."""
    if name == session.UPLOADED:
        st.info("These are your own checkpoints. To go back, choose a bundled pair in the sidebar.")
        return
    card = zoo.read_card(name)
    st.markdown(f"**{words.plain(card['title'])}** — {words.plain(card['shows'])}")
    recipe = card["recipe"]
    made = "made by hand" if recipe is None else _recipe_words(recipe, card["seeds"])
    st.caption(
        f"{card['parameters']:,} parameters · {words.plain(card['data_title'])} · "
        f"{words.plain(made)} · fingerprints {words.code(card['fingerprint_a'][:12])} and "
        f"{words.code(card['fingerprint_b'][:12])}"
    )


def _recipe_words(recipe: Row, seeds: Sequence[int]) -> str:
    name = "Adam" if recipe["optimiser"] == "adam" else "SGD"
    schedule = ", one-cycle" if recipe["schedule"] == "one-cycle" else ""
    return (
        f"trained with {name}, step {recipe['lr']:g}{schedule}, {recipe['epochs']} epochs · "
        f"seeds {seeds[0]} and {seeds[1]}"
    )


def end_point_rows(ends: dict[str, list[EndPoint]]) -> list[Row]:
    """List loss and accuracy of both models, one row per model and split."""
    return [
        {
            "Model": model.upper(),
            "Split": point.split,
            "Examples": point.examples,
            f"Loss ({point.loss_unit})": round(point.loss, 4),
            "± SE": round(point.loss_standard_error, 4),
            "Accuracy (%)": round(100 * point.accuracy, 2),
        }
        for model, points in ends.items()
        for point in points
    ]
