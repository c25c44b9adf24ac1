"""Sliders for the shares of a weighted mean; loss and accuracy follow in the browser.

The grid of shares is computed on the server once. Between its points the browser interpolates
linearly: in cumulated shares the grid is cut into simplices along its diagonals (Freudenthal), so
that every mean has at most as many neighbours as there are models. What the browser runs is in the
files of this module's name beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import streamlit as st

from merging.schema.legible import legible
from merging.schema.records.scores import Mixtures

_NAME = 80  # characters
_HTML, _CSS, _JS = (
    Path(__file__).with_suffix(suffix).read_text("utf-8") for suffix in (".html", ".css", ".js")
)


def sliders(found: Mixtures, models: Sequence[str], tasks: Sequence[str], *, key: str) -> None:
    """Draw one slider per model and the values that follow them.

    Args:
        found: The grid of shares with its values.
        models: What screens call the models.
        tasks: What screens call the tasks.
        key: `<page>_<what>`.
    """
    component = st.components.v2.component("shares", html=_HTML, css=_CSS, js=_JS)
    component(
        key=key,
        data={
            "models": [legible(name, most=_NAME, lines=False) for name in models],
            "tasks": [legible(name, most=_NAME, lines=False) for name in tasks],
            "steps": found.steps,
            "cells": np.rint(found.shares * found.steps).astype(int).tolist(),
            "loss": np.round(found.loss, 4).tolist(),
            "accuracy": np.round(np.nan_to_num(found.accuracy), 4).tolist(),
            "byLoss": found.loss_unit == "squared error",
            "worst": float(np.nanmax(found.loss)),
            "unit": found.loss_unit,
        },
    )
