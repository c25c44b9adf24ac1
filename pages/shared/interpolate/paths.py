"""Trained paths on the Interpolate page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from merging.results import requests
from pages.shared import charts, session, words
from pages.shared import statistics as shared_statistics
from pages.shared import titles as shared_titles
from pages.shared.interpolate import choices
from pages.shared.jobs import Found
from pages.shared.rows import Row, shown


def path_curves(
    choice: choices.CurveChoices, alignments: Sequence[requests.AlignmentRequest | None]
) -> list[requests.PathCurveRequest]:
    """Ask for curves along trained paths, before and after alignment, if a kind was chosen.

    Running statistics are re-estimated at every point where there are any: those of three mixed
    networks are nobody's.
    """
    if choice.path == "none":
        return []
    statistics: Any = "reset" if shared_statistics.keeps_statistics() else "interpolated"
    return [
        requests.PathCurveRequest(
            subject=session.subject(),
            path=session.path(choice.path, alignment),
            split=split,
            statistics=statistics,
        )
        for alignment in alignments
        for split in choice.splits
    ]


def is_path(found: Found[Any]) -> bool:
    """Say whether a result is a curve along a path."""
    return isinstance(found.request, requests.PathCurveRequest)


def explain_paths(found: Sequence[Found[Any]], statistics: str) -> None:
    """Say how the paths of some curves were trained, and what they show and do not show."""
    trained = {f.request.path.key: f for f in found if is_path(f)}
    if not trained:
        return
    st.subheader("Trained paths", anchor=False)
    charts.table([_path_row(f) for f in trained.values()], key="interpolate_paths")
    first = next(iter(trained.values()))
    text = (
        "A trained path shows that some way of low loss leads from A to B. It does not "
        "show that the straight line is low, nor that the two share a basin: its bends were "
        "trained for this. They were trained on the training examples, so only the test examples "
        "are new to a path; its ±2 standard errors are as wide as the bands of the lines."
    )
    if first.request.statistics == "reset":
        text += (
            " Running statistics are re-estimated at every point of a path"
            f" ({first.result.curve.statistics})"
        )
        same = statistics == "reset"
        text += ", as on the lines." if same else "; choose RESET to compare lines on equal terms."
    st.caption(words.plain(text))


def _path_row(found: Found[Any]) -> Row:
    path = found.result.path
    end = round(path.history[-1], 4) if path.history else None
    return {
        "Path": shared_titles.path_title(found.request.path),
        "Bends": path.bends,
        "Length (lines)": round(path.length, 3),
        "Off the line": round(path.distance, 3),
        f"Training loss at the end ({path.loss_unit})": end,
        "Settled": "yes" if path.converged else "no",
        "Seconds": round(path.seconds, 1),
        "Seed": path.seed,
        **{
            name.replace("_", " ").capitalize(): shown(value)
            for name, value in path.options.items()
        },
    }
