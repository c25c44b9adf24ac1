"""Trained paths, mixtures and posterior samples in words and rows, as pages show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from merging import visualization
from merging.results import requests
from merging.schema.records.simplex import SimplexLoss
from pages.shared import charts, session, words
from pages.shared import titles as shared_titles
from pages.shared.jobs import Found

Row = dict[str, Any]


def simplex(found: Sequence[Found[Any]], metric: Any) -> None:
    """The triangles of mixtures, with their numbers and what they show."""
    for item in found:
        losses = item.result
        titles = [_corner_title(point) for point in item.request.points]
        charts.show(
            visualization.plot_simplex(losses, metric=metric, titles=titles, **charts.look()),
            key="landscape_simplex",
            alt=visualization.describe_simplex(losses, titles),
            rows=_simplex_rows(losses, titles),
        )
        charts.source(
            session.subject_title(item.request.subject),
            f"{len(losses.loss):,} mixtures",
            f"{losses.examples:,} {losses.split} examples",
            f"statistics {losses.statistics}",
        )
        st.caption(
            f"{words.plain(_lowest(losses, titles))}Every point is the mean of the corners, "
            "weighted by how near they are. What this does not show: mixtures layer by layer, "
            "weights outside 0 to 1. A lowest point that was picked on test examples flatters "
            "itself."
        )


def _lowest(losses: SimplexLoss, titles: Sequence[str]) -> str:
    if losses.best < 0:
        return ""
    shares = visualization.shares_words(losses.weights[losses.best].tolist(), titles)
    return f"Lowest of the mixtures: {losses.loss[losses.best]:.3f} at {shares}. "


def _corner_title(point: requests.Corner) -> str:
    if isinstance(point, str):
        return point.upper()
    if isinstance(point, requests.PathRequest):
        return f"bend of {shared_titles.path_title(point)}"
    return f"π(B), {shared_titles.method_title(point.method).lower()}"


def _simplex_rows(losses: SimplexLoss, titles: Sequence[str]) -> list[Row]:
    return [
        {
            **{f"Share of {t} (%)": round(100 * w, 2) for t, w in zip(titles, row, strict=True)},
            "Loss": float(loss),
            "Loss SE": float(error),
            "Accuracy (%)": 100 * float(accuracy),
        }
        for row, loss, error, accuracy in zip(
            losses.weights.tolist(),
            losses.loss,
            losses.standard_error,
            losses.accuracy,
            strict=True,
        )
    ]
