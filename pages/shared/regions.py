"""Trained paths, mixtures and posterior samples in words and rows, as pages show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import streamlit as st

from merging import requests, visualization
from merging.regions import SimplexLoss
from pages.shared import charts, controls, state, summaries, words
from pages.shared.jobs import Found

Row = dict[str, Any]


def path_curves(
    choice: controls.CurveChoices, alignments: Sequence[requests.AlignmentRequest | None]
) -> list[requests.PathCurveRequest]:
    """Curves along trained paths, before and after alignment, if a kind was chosen.

    Running statistics are re-estimated at every point where there are any: those of three mixed
    networks are nobody's.
    """
    if choice.path == "none":
        return []
    statistics: Any = "reset" if controls.keeps_statistics() else "interpolated"
    return [
        requests.PathCurveRequest(
            state.subject(), state.path(choice.path, alignment), split, statistics
        )
        for alignment in alignments
        for split in choice.splits
    ]


def is_path(found: Found[Any]) -> bool:
    """Whether a result is a curve along a path."""
    return isinstance(found.request, requests.PathCurveRequest)


def explain_paths(found: Sequence[Found[Any]], statistics: str) -> None:
    """How the paths of some curves were trained, and what they show and do not."""
    trained = {f.request.path.key: f for f in found if is_path(f)}
    if not trained:
        return
    st.subheader("Trained paths", anchor=False)
    charts.table([_path_row(f) for f in trained.values()], key="interpolate_paths")
    first = next(iter(trained.values()))
    text = (
        "A trained path shows that some low way leads from one model to the other. It does not "
        "show that the straight line is low, nor that the two share a basin: its bends were "
        "trained for this. They were trained on the training examples, so only the test examples "
        "are new to a path; its ±2 standard errors are as wide as the bands of the lines."
    )
    if first.result.curve.statistics.startswith("RESET"):
        text += (
            " Running statistics are estimated anew at every point of a path"
            f" ({first.result.curve.statistics})"
        )
        same = statistics == "reset"
        text += ", as on the lines." if same else "; choose RESET to compare lines on equal terms."
    st.caption(words.plain(text))


def _path_row(found: Found[Any]) -> Row:
    path = found.result.path
    return {
        "Path": summaries.path_title(found.request.path),
        "Bends": path.bends,
        "Length (lines)": round(path.length, 3),
        "Off the line": round(path.distance, 3),
        "Training loss at the end": round(path.history[-1], 4) if path.history else None,
        "Settled": "yes" if path.converged else "no",
        "Seconds": round(path.seconds, 1),
        "Seed": path.seed,
        **{
            name.replace("_", " ").capitalize(): _number(value)
            for name, value in path.options.items()
        },
    }


def _number(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def cap(surfaces: Sequence[visualization.NamedSurface]) -> float | None:
    """Loss beyond which colours do not change on planes with a path; None on all others.

    A bend's direction is often a steep one, and its far heights would leave no colours for the
    line and the path: colours end at three times the highest loss of the lines.
    """
    highest = []
    for named in surfaces:
        grid = named.surface
        if not grid.paths:
            return None
        line = grid.loss[np.abs(grid.y).argmin(), (grid.x >= 0) & (grid.x <= grid.scale)]
        highest += line[np.isfinite(line)].tolist()
    return 3 * max(highest) if highest else None


def explain_plane(surfaces: Sequence[visualization.NamedSurface]) -> None:
    """Whether the paths and the samples on some planes lie in them, and what they show."""
    lines, close = [], False
    for named in surfaces:
        scale = named.surface.scale
        for path in named.surface.paths:
            off = float(path.residual.max()) / scale
            if off > 1e-3:
                lines.append(
                    f"{named.title}: the path leaves the plane by up to {off:.3f} ‖B − A‖; drawn "
                    "is its projection (dotted), and its own loss is not that of the plane."
                )
        for samples in named.samples:
            off = float(np.median([point.residual for point in samples.points])) / scale
            spread = np.ptp([(point.x, point.y) for point in samples.points], axis=0).max() / scale
            close = close or bool(spread < _SEEN)
            lines.append(
                f"{named.title}: {len(samples.points)} SWAG samples around "
                f"{_around(samples.around)} (diamonds, in the colour of their own loss: "
                f"{samples.loss.min():.3f} to "
                f"{samples.loss.max():.3f}) lie about {off:.3f} ‖B − A‖ off the plane; from "
                f"{samples.snapshots} snapshots of SGD, statistics {samples.statistics}."
            )
    if any(named.surface.paths for named in surfaces):
        lines.append(
            "The bend was trained on the training examples; that the plane is low around it says "
            "nothing about other planes."
        )
    if close:
        lines.append(_TOO_CLOSE)
    for line in lines:
        st.caption(words.plain(line))


_SEEN = 0.02  # of the distance from A to B: about a marker
_TOO_CLOSE = (
    "Where the training loss is almost zero, SGD hardly moves: samples then lie on their model's "
    "mark. A larger step size spreads them."
)


def _around(name: str) -> str:
    return name if name in ("A", "B") else "π(B)"


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
            state.subject_title(item.request.subject),
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
        return f"bend of {summaries.path_title(point)}"
    return f"π(B), {summaries.method_title(point.method).lower()}"


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
