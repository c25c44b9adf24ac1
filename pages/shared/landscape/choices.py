"""What the Landscape page lets a person choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import streamlit as st

from merging.results import requests
from merging.schema.cards import paths
from merging.schema.cards.titles import NAIVE, aligned_title, method_words
from merging.schema.records.curve import Metric
from pages.shared import session, words
from pages.shared.option_widget import segments
from pages.shared.path_choice import path_choice, path_options
from pages.shared.statistics import keeps_statistics, statistics_choice

# Bends lie close to the line: a window with wider margins would show mostly what is far from it.
PATH_MARGIN = 0.1
SurfaceKind = Literal["aligned", "path", "three", "random", "simplex"]


KINDS = {
    "aligned": "A, B and the aligned B",
    "path": "Trained path",
    "three": "Any three models",
    "random": "Random directions",
    "simplex": "Mixtures",
}


@dataclass(frozen=True)
class SurfaceChoices:
    """What the Landscape page shows."""

    kind: SurfaceKind
    points: tuple[str, ...]
    level: int
    metric: Metric
    split: requests.Split
    statistics: Literal["interpolated", "reset"]
    path: str = "bezier"
    samples: bool = False


def surface_choices() -> SurfaceChoices:
    """Let a person choose plane, resolution, quantity, examples, statistics and path."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        kind = segments(
            "Plane",
            list(KINDS),
            default="aligned",
            format_func=KINDS.__getitem__,
            key="landscape_plane",
            wrap=True,
            bind="query-params",
        )
        side = st.select_slider(
            "Points per side",
            requests.LEVELS,
            33,
            key="landscape_side",
            bind="query-params",
            width=180,
        )
        metric = segments(
            "Colour",
            ["loss", "accuracy"],
            default="loss",
            format_func=str.capitalize,
            key="landscape_metric",
            bind="query-params",
        )
        split = segments(
            "Examples",
            ["test", "train"],
            default="test",
            format_func=str.capitalize,
            key="landscape_split",
            bind="query-params",
        )
        statistics = "interpolated"
        if keeps_statistics():
            statistics = statistics_choice(["interpolated", "reset"], key="landscape_statistics")
        path = "bezier"
        if kind == "path":
            path = path_choice(list(paths.PATH_CARDS), key="landscape_path")
        samples = kind in ("aligned", "path", "three") and st.toggle(
            "SWAG samples",
            key="landscape_swag",
            bind="query-params",
            help=f"{words.plain(paths.SWAG_CARD.about)} Drawn where they project onto the plane.",
        )
    if kind in ("path", "simplex"):
        st.caption("Options of paths are set on the Interpolate page and apply here too.")
    if samples:
        path_options(paths.SWAG_CARD.name)
    points = _plane_points(kind)
    return SurfaceChoices(
        kind=cast("SurfaceKind", kind),
        points=points,
        level=requests.LEVELS.index(side),
        metric=cast("Metric", metric),
        split=cast("requests.Split", split),
        statistics=cast("Literal['interpolated', 'reset']", statistics),
        path=path,
        samples=samples,
    )


def _plane_points(kind: str) -> tuple[str, ...]:
    titles = {"a": "Model A", "b": "Model B"}
    for method in session.chosen_methods():
        titles[method] = aligned_title(method)
    names = list(titles)
    if kind == "random":
        around = st.selectbox(
            "Around", names, format_func=titles.__getitem__, key="landscape_around", width=320
        )
        return (str(around),)
    if kind == "simplex":
        bends = {f"{kind} {m}": f"bend of {title}" for kind, m, title in _bends()}
        titles |= bends
        chosen = st.multiselect(
            "Mix these",
            list(titles),
            names[:1] + names[2:4] if len(names) > 3 else names[:3],
            format_func=titles.__getitem__,
            max_selections=4,
            key="landscape_mix",
        )
        if len(chosen) < 3:
            st.info("Choose three or four models to mix.", icon=":material/arrow_upward:")
            return ()
        return tuple(chosen)
    if kind == "three":
        chosen = st.multiselect(
            "Through these three",
            names,
            names[:3],
            format_func=titles.__getitem__,
            max_selections=3,
            key="landscape_three",
        )
        if len(chosen) < 3:
            st.info("Choose three models for the plane.", icon=":material/arrow_upward:")
            return ()
        return tuple(chosen)
    return ("a", "b")


def _bends() -> list[tuple[str, str, str]]:
    """Return bends of paths that may be mixed: kind, method and words."""
    return [
        (kind, method, f"{card.title} path, {method_words(method)}")
        for kind, card in paths.PATH_CARDS.items()
        if kind != "neb"
        for method in (NAIVE, *session.chosen_methods())
    ]
