"""Trained paths, mixtures and posterior samples in words and rows, as pages show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from merging import visualization
from merging.results import requests
from merging.schema.cards.titles import aligned_title
from merging.schema.records.simplex import SimplexLoss
from pages.shared import charts, session, titles, words
from pages.shared.jobs import Found
from pages.shared.rows import Row


def simplex(found: Sequence[Found[Any]], metric: Any) -> None:
    """Show the triangles of mixtures, with their numbers and what they show."""
    for item in found:
        losses = item.result
        corners = [_corner_title(point) for point in item.request.points]
        charts.show(
            visualization.plot_simplex(losses, metric=metric, titles=corners, **charts.look()),
            key="landscape_simplex",
            alt=visualization.describe_simplex(losses, corners),
            rows=_simplex_rows(losses, corners),
        )
        charts.source(
            session.subject_title(item.request.subject),
            f"{len(losses.loss):,} mixtures",
            f"{losses.examples:,} {losses.split} examples",
            f"statistics {losses.statistics}",
        )
        st.caption(
            f"{words.plain(_lowest(losses, corners))}Every point is the mean of the corners, "
            "weighted by how near they are. What this does not show: mixtures layer by layer, "
            "weights outside 0 to 1. A lowest point that was picked on test examples looks better "
            "than it is."
        )


def _lowest(losses: SimplexLoss, corners: Sequence[str]) -> str:
    if losses.best < 0:
        return ""
    shares = visualization.shares_words(losses.weights[losses.best].tolist(), corners)
    return (
        f"Lowest of the mixtures: {losses.loss[losses.best]:.3f} {losses.loss_unit} at {shares}. "
    )


def _corner_title(point: requests.Corner) -> str:
    if isinstance(point, str):
        return point.upper()
    if isinstance(point, requests.PathRequest):
        return titles.bend_title(point)
    return aligned_title(point.method)


def _simplex_rows(losses: SimplexLoss, corners: Sequence[str]) -> list[Row]:
    return [
        {
            **{f"Share of {t} (%)": round(100 * w, 2) for t, w in zip(corners, row, strict=True)},
            f"Loss ({losses.loss_unit})": float(loss),
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
