"""What the Interpolate page lets a person choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import streamlit as st

from merging.results import requests
from merging.schema.cards import paths
from merging.schema.records.curve import Baseline
from pages.shared.path_choice import path_choice, path_options
from pages.shared.statistics import STATISTICS, statistics_choice

BASELINES = {"endpoints-mean": "mean of the end points", "linear": "line between the end points"}


@dataclass(frozen=True)
class CurveChoices:
    """What the Interpolate page shows."""

    splits: tuple[requests.Split, ...]
    statistics: requests.Statistics
    baseline: Baseline
    overshoot: float
    log_loss: bool
    path: str


def curve_choices() -> CurveChoices:
    """Let a person choose splits, statistics, barrier definition, scale and paths."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        splits = st.pills(
            "Examples",
            ["test", "train"],
            selection_mode="multi",
            default=["test"],
            format_func=str.capitalize,
            key="interpolate_splits",
            bind="query-params",
        )
        statistics = statistics_choice(list(STATISTICS), key="interpolate_statistics")
        baseline = st.selectbox(
            "Barrier above the",
            list(BASELINES),
            format_func=BASELINES.__getitem__,
            key="interpolate_baseline",
            bind="query-params",
            width=240,
        )
        beyond = st.toggle("Beyond both models", key="interpolate_beyond", bind="query-params")
        log_loss = st.toggle("Log scale", key="interpolate_log", bind="query-params")
        path = path_choice(["none", *paths.PATH_CARDS], key="interpolate_path")
    if path != "none":
        path_options(path)
    return CurveChoices(
        splits=tuple(cast("list[requests.Split]", splits or ["test"])),
        statistics=statistics,
        baseline=cast("Baseline", baseline),
        overshoot=0.25 if beyond else 0.0,
        log_loss=log_loss,
        path=path,
    )
