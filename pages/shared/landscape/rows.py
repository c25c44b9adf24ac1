"""Surfaces as named figures and rows of tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import streamlit as st

from merging import visualization
from merging.results import requests
from merging.schema.cards.titles import NAIVE, method_title
from pages.shared import statistics
from pages.shared.jobs import Found
from pages.shared.rows import Row, rounded
from pages.shared.titles import method_of, model_title, path_title


def named_surfaces(
    found: Sequence[Found[Any]], samples: Sequence[Found[Any]] = ()
) -> list[visualization.NamedSurface]:
    """Name surfaces with at least one finished level, with the samples on their planes."""
    named = []
    for f in found:
        if not f.result.evaluated.any():
            continue
        last = f.request.points[-1]
        if isinstance(last, requests.PathRequest):
            method, title = method_of(last), path_title(last)
        else:
            method = last.method if isinstance(last, requests.AlignmentRequest) else NAIVE
            title = method_title(method)
        plane = next((s.result for s in samples if s.request.plane == f.request.points), ())
        named.append(
            visualization.NamedSurface(
                title=title, method=method, surface=f.result, samples=tuple(plane)
            )
        )
    return named


def surface_rows(surfaces: Sequence[visualization.NamedSurface]) -> list[Row]:
    """List the models on every plane: where they lie, and the loss of the nearest grid point."""
    rows = []
    for named in surfaces:
        surface = named.surface
        for point in surface.points:
            loss = surface.loss[
                np.abs(surface.y - point.y).argmin(), np.abs(surface.x - point.x).argmin()
            ]
            rows.append({
                "Plane": named.title,
                "Model": model_title(point.name),
                "x": round(point.x / surface.scale, 4),
                "y": round(point.y / surface.scale, 4),
                "Distance off the plane": round(point.residual / surface.scale, 6),
                f"Loss nearby ({surface.loss_unit})": rounded(float(loss)),
            })
    return rows


def surface_facts(surfaces: Sequence[visualization.NamedSurface]) -> list[str]:
    """Say how many points and examples surfaces rest on, and what was not finite."""
    first = surfaces[0].surface
    done = sum(int(s.surface.evaluated.sum()) for s in surfaces)
    bad = sum(s.surface.non_finite for s in surfaces)
    facts = [f"{done:,} points", f"{first.examples:,} {first.split} examples"]
    facts.append(f"statistics {first.statistics}")
    return [*facts, f"{bad} points without a finite loss"] if bad else facts


def explain_blanks(surfaces: Sequence[visualization.NamedSurface]) -> None:
    """Say why networks of a slice have no loss, where running variances are the reason."""
    blank = any(named.surface.non_finite for named in surfaces)
    if blank and surfaces[0].surface.statistics == "interpolated" and statistics.keeps_statistics():
        st.caption(
            "Crosses: networks without a finite loss. Between two models an interpolated running "
            "variance is positive; farther out it may fall below zero, and nothing is computed "
            "with it. RESET re-estimates the statistics at every point."
        )
