"""The Merge page's triangle of mixtures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import streamlit as st

from merging import visualization
from merging.results import requests
from merging.schema.records.scores import Mixtures
from merging.schema.records.simplex import SimplexLoss
from pages.shared import charts, jobs, words
from pages.shared.merge import share_sliders
from pages.shared.merge.choice import Choice
from pages.shared.rows import Row, rounded


def mixtures(choice: Choice) -> None:
    """Show shares of the weighted mean, with sliders."""
    if choice.family.configs:
        st.info("Models of different widths have no weighted mean.")
        return
    wanted = requests.MixturesRequest(
        family=choice.family, order=choice.order, statistics=choice.statistics
    )
    for found in jobs.follow("merge_mixtures", [wanted]):
        if found.request != wanted:
            continue
        result = found.result
        if len(choice.models) == 3:
            left, right = st.columns(2, gap="large")
            with left:
                share_sliders.sliders(result, choice.models, choice.tasks, key="merge_shares")
            with right:
                _triangle(result, choice.models)
        else:
            share_sliders.sliders(result, choice.models, choice.tasks, key="merge_shares")
        best = int(np.nanargmin(result.loss.mean(1)))
        mixed = ", ".join(
            f"{name} {share:.0%}"
            for name, share in zip(choice.models, result.shares[best], strict=True)
            if share
        )
        charts.source(
            choice.title,
            f"{len(result.shares):,} means computed, linear in between",
            f"{result.split} examples",
        )
        st.caption(f"Lowest mean loss of the grid: {words.plain(mixed)}.")


def _triangle(found: Mixtures, models: Sequence[str]) -> None:
    """Show the same grid as a picture: the nearer a corner, the larger that model's share."""
    simplex = visualization.simplex_of_shares(found, models)
    charts.show(
        # In half a page's width it has to be drawn as for a phone.
        visualization.plot_simplex(simplex, dark=charts.dark(), compact=True),
        key="merge_triangle",
        alt=visualization.describe_simplex(simplex),
        rows=_share_rows(simplex),
    )
    st.caption("Mean loss over the tasks. The nearer to a corner, the larger that model's share.")


def _share_rows(simplex: SimplexLoss) -> list[Row]:
    return [
        {
            **{f"{n} (%)": round(100 * w) for n, w in zip(simplex.names, row, strict=True)},
            f"Loss ({simplex.loss_unit})": round(float(loss), 4),
            "Accuracy (%)": rounded(100 * float(accuracy), 2),
        }
        for row, loss, accuracy in zip(
            simplex.weights.tolist(), simplex.loss, simplex.accuracy, strict=True
        )
    ]
