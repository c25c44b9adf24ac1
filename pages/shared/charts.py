"""Charts on a page: theme, words for those who cannot see them, the numbers as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from merging.schema.legible import legible
from pages.shared import words

_CONFIG = {
    "displaylogo": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
}
_WHOLE_NAME = 22  # characters


def dark() -> bool:
    """Say whether the page is drawn on a dark background."""
    return st.context.theme.type == "dark"


def compact() -> bool:
    """Say whether the page is read on a phone."""
    return "Mobi" in st.context.headers.get("User-Agent", "")


def look() -> dict[str, Any]:
    """Return how figures have to be drawn for this reader."""
    return {"dark": dark(), "compact": compact()}


def show(figure: go.Figure, *, key: str, alt: str, rows: Sequence[Mapping[str, Any]] = ()) -> None:
    """Draw a figure with its description, and its numbers as a table that can be downloaded.

    Args:
        figure: The figure.
        key: `<page>_<what>`.
        alt: What the figure shows, in a sentence with its numbers.
        rows: The numbers, one mapping per row.
    """
    image = {"format": "svg", "filename": f"one-basin-{key}", "scale": 2}
    config = {**_CONFIG, "toImageButtonOptions": image, "displayModeBar": not compact() and "hover"}
    st.plotly_chart(figure, theme=None, key=key, alt=legible(alt), config=config)
    if rows:
        with st.expander("View as table", icon=":material/table:"):
            table(rows, key=f"{key}_table")


def table(rows: Sequence[Mapping[str, Any]], *, key: str) -> None:
    """Show rows, with a button that downloads them as CSV."""
    frame = pd.DataFrame(list(rows))
    st.dataframe(
        frame,
        hide_index=True,
        key=key,
        width="stretch",
        column_config=_whole_names(frame) | _formats(frame.select_dtypes("float")),
        placeholder="–",
    )
    st.download_button(
        "Download CSV",
        frame.to_csv(index=False).encode(),
        f"one-basin-{key}.csv",
        "text/csv",
        key=f"{key}_csv",
        icon=":material/download:",
    )


def _whole_names(frame: pd.DataFrame) -> dict[str, Any]:
    """Make room for the names in the first column, which other columns' headers take away."""
    if frame.empty:
        return {}
    first = frame.columns[0]
    longest = max(map(len, [str(first), *frame[first].astype(str)]))
    if longest > _WHOLE_NAME:
        return {}
    return {str(first): st.column_config.Column(width=30 + 7 * longest)}


def _formats(numbers: pd.DataFrame) -> dict[str, Any]:
    """Give all numbers of a column the decimals of the longest, unless sizes differ much."""
    formats = {}
    for name, column in numbers.items():
        known = column[np.isfinite(column)]
        sizes = known[known != 0].abs()
        if sizes.empty or sizes.max() > 1e5 * sizes.min():
            continue
        texts = (f"{number:.6f}".rstrip("0") for number in known)
        decimals = max(len(text.partition(".")[2]) for text in texts)
        formats[str(name)] = st.column_config.NumberColumn(format=f"%.{decimals}f")
    return formats


def source(subject_title: str, *facts: str) -> None:
    """Say what a result was computed from."""
    st.caption(words.plain(" · ".join(["Computed from " + subject_title, *facts])))
