"""The models on a surface: markers, straight paths, and the arrow from B to its aligned self."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from merging.schema.cards.titles import NAIVE, aligned_title
from merging.schema.records.surface import PlanePath, PlanePoint, Surface
from merging.visualization.surfaces.labels import Label, place_labels
from merging.visualization.surfaces.panels import Panel
from merging.visualization.theme import METHOD_STYLES, PATH_STYLE, float32, method_style

Role = Literal["A", "B", "pi", "bend"]
PLATE = "rgba(255,255,255,0.86)"
PRINT = "#1b1c22"
HALO = "#ffffff"


@dataclass(frozen=True)
class Mark:
    """A model as it is drawn, with its place in the figure's units."""

    label: str
    x: float
    y: float
    residual: float
    symbol: str
    colour: str
    role: Role

    @property
    def off_plane(self) -> bool:
        """Whether the model lies visibly off the plane."""
        return self.residual > 1e-3


def marks(surface: Surface, method: str) -> list[Mark]:
    """Say what to draw for every point of a surface.

    A point named A or B is that model, and `bend` that of a trained path. Any other is an aligned
    model in the colours of the method that its name holds, or of the surface's own method.

    Args:
        surface: The surface with its points.
        method: The surface's own method.

    Returns:
        One mark per point, in their order.
    """
    several = sum(point.name in METHOD_STYLES for point in surface.points) > 1
    return [_mark(point, surface.scale, method, several) for point in surface.points]


def _mark(point: PlanePoint, scale: float, method: str, several: bool) -> Mark:
    place = {
        "x": point.x / scale,
        "y": point.y / scale,
        "residual": point.residual / scale,
    }
    name = point.name.removeprefix("model ").removeprefix("Model ")
    if name.startswith("bend"):
        symbol, colour = PATH_STYLE.symbol, PATH_STYLE.light
        return Mark(label="bend", **place, symbol=symbol, colour=colour, role="bend")
    if name == "A":
        return Mark(label=name, **place, symbol="circle", colour=PRINT, role="A")
    if name == "B":
        return Mark(label=name, **place, symbol="square", colour=PRINT, role="B")
    own = next((key for key in METHOD_STYLES if key in name.lower().replace(" ", "_")), method)
    style = method_style(own)
    if name in METHOD_STYLES:
        name = aligned_title(own if several else "")
    return Mark(label=name, **place, symbol=style.symbol, colour=style.light, role="pi")


def add_points(
    figure: go.Figure,
    method: str,
    surface: Surface,
    panel: Panel,
    crowds: Sequence[tuple[float, float]] = (),
) -> None:
    """Draw the models of a surface, their paths and their labels on one panel.

    Args:
        figure: The figure to draw on.
        method: The surface's own method.
        surface: The surface with its points.
        panel: Where on the figure.
        crowds: Where further points will be drawn, which labels must not cover.
    """
    drawn = marks(surface, method)
    axes = {"xaxis": f"x{panel.suffix}", "yaxis": f"y{panel.suffix}", "showlegend": False}
    model = {mark.role: mark for mark in drawn if mark.role in {"A", "B"}}
    aligned = [mark for mark in drawn if mark.role == "pi" and not mark.off_plane]
    labels = [_label(mark) for mark in drawn]
    if "A" in model:
        for end in [*([model["B"]] if "B" in model else []), *aligned]:
            figure.add_traces(_path(model["A"], end, axes))
    if "B" in model:
        for end in aligned:
            bow = _bow(model["B"], end)
            figure.add_traces(_arrow(bow, axes))
            x, y = (float(line[line.size // 2]) for line in bow)
            labels.append(Label(text="same function", x=x, y=y, gap=4))
    for path in surface.paths:
        figure.add_traces(_trained(path, surface.scale, axes))
    figure.add_traces([_dot(mark, axes) for mark in drawn])
    kept_free = [
        Label(text="", x=x / surface.scale, y=y / surface.scale, gap=14) for x, y in crowds
    ]
    shifts = place_labels([*labels, *kept_free], surface, panel)
    for label, shift in zip(labels, shifts, strict=False):
        figure.add_annotation(
            text=label.text, x=label.x, y=label.y, xref=axes["xaxis"], yref=axes["yaxis"],
            xshift=shift[0], yshift=shift[1], font={"size": 13, "color": PRINT}, bgcolor=PLATE,
            borderpad=1,
        )  # fmt: skip


def _label(mark: Mark) -> Label:
    note = f"<br>{mark.residual:.2f} off the plane" if mark.off_plane else ""
    return Label(text=f"{mark.label}{note}", x=mark.x, y=mark.y, gap=12)


def _path(start: Mark, end: Mark, axes: dict[str, Any]) -> list[go.Scatter]:
    colour = METHOD_STYLES[NAIVE].light if end.role == "B" else end.colour
    ends = {"x": [start.x, end.x], "y": [start.y, end.y], "mode": "lines", "hoverinfo": "skip"}
    under = go.Scatter(**ends, **axes, line={"color": HALO, "width": 5}, name="path halo")
    return [
        under,
        go.Scatter(**ends, **axes, line={"color": colour, "width": 2.5}, name=f"A to {end.label}"),
    ]


def _trained(path: PlanePath, scale: float, axes: dict[str, Any]) -> list[go.Scatter]:
    """Draw a trained path: solid where it lies in the plane, dotted where it is only projected."""
    off = path.residual / scale
    line = {"x": float32(path.x / scale), "y": float32(path.y / scale), "mode": "lines"}
    dash = "dot" if off.max() > 1e-3 else "solid"
    return [
        go.Scatter(
            **line, **axes, line={"color": HALO, "width": 5}, hoverinfo="skip", name="path halo"
        ),
        go.Scatter(
            **line,
            **axes,
            line={"color": PATH_STYLE.light, "width": 3, "dash": dash},
            customdata=float32(off),
            hovertemplate="trained path (%{x:.2f}, %{y:.2f})<br>%{customdata:.3f} off the plane"
            "<extra></extra>",
            name="trained path",
        ),
    ]


def _bow(start: Mark, end: Mark) -> NDArray[np.float32]:
    """Draw a line from B to an aligned B, `[2, 24]`, bent away from A, the origin of the plane."""
    a, b = np.array([start.x, start.y]), np.array([end.x, end.y])
    across = np.array([b[1] - a[1], a[0] - b[0]])
    middle = (a + b) / 2
    bend = middle + (0.35 if float(np.dot(across, middle)) >= 0 else -0.35) * across
    t = np.linspace(0.06, 0.94, 24)[:, None]
    return ((1 - t) ** 2 * a + 2 * t * (1 - t) * bend + t**2 * b).T.astype(np.float32)


def _arrow(bow: NDArray[np.float32], axes: dict[str, Any]) -> list[go.Scatter]:
    line = {"x": bow[0], "y": bow[1], "hoverinfo": "skip"}
    tip = {"symbol": "arrow", "angleref": "previous", "color": PRINT}
    return [
        go.Scatter(**line, **axes, mode="lines", line={"color": HALO, "width": 4}, name="bow halo"),
        go.Scatter(
            **line,
            **axes,
            mode="lines+markers",
            line={"color": PRINT, "width": 2, "dash": "dot"},
            marker=tip | {"size": [0] * 23 + [11], "line": {"color": HALO, "width": 1}},
            name="same function",
        ),
    ]


def _dot(mark: Mark, axes: dict[str, Any]) -> go.Scatter:
    symbol = f"{mark.symbol}-open" if mark.off_plane else mark.symbol
    edge = {"color": mark.colour, "width": 2.5} if mark.off_plane else {"color": HALO, "width": 2}
    size = 17 if mark.symbol in {"star", "triangle-up"} else 14
    return go.Scatter(
        x=[mark.x],
        y=[mark.y],
        **axes,
        mode="markers",
        marker={"symbol": symbol, "size": size, "color": mark.colour, "line": edge},
        hovertemplate=f"{mark.label} (%{{x:.2f}}, %{{y:.2f}})<extra></extra>",
        name=mark.label,
    )
