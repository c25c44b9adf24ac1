"""One loss surface as a landscape in three dimensions, drawn only when it is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from merging.schema.cards.titles import NAIVE
from merging.schema.records.curve import Metric
from merging.schema.records.surface import Surface
from merging.visualization.surfaces.colour_scale import ColourScale, colour_scale
from merging.visualization.surfaces.grid import Shown, shown_part, thinned
from merging.visualization.surfaces.models_on_plane import Mark, marks
from merging.visualization.theme import CLEAR, blank_figure, faded, float32, inks
from merging.visualization.wording import value_hover

MOST_SIDE = 51
SYMBOLS_3D = {
    "A": "circle",
    "B": "square",
    "pi": "diamond",
    "bend": "cross",
}  # three dimensions know few markers


def plot_surface_3d(
    surface: Surface,
    *,
    method: str = NAIVE,
    metric: Metric = "loss",
    cap: float | None = None,
    dark: bool = False,
    compact: bool = False,
) -> go.Figure:
    """Draw one surface as a landscape: height and colour both show the metric.

    Args:
        surface: What was measured; at most 51 points a side are drawn.
        method: Whose colour the aligned model takes.
        metric: What height and colours show; loss on a logarithmic scale.
        cap: Loss (or, for accuracy, least accuracy) at which the landscape is cut off.
        dark: Whether the page is dark.
        compact: Whether the figure must fit a phone.

    Returns:
        The figure, with one WebGL surface.
    """
    shown = shown_part(surface)
    part = Shown(thinned(shown.surface, MOST_SIDE), shown.whole, shown.finest)
    grid, scale = part.surface, colour_scale([part], metric, cap)
    height = np.clip(scale.coordinate(part), scale.low, scale.high)
    figure = blank_figure(dark, 380 if compact else 600, {"l": 0, "r": 0, "t": 10, "b": 10})
    figure.add_surface(
        x=float32(grid.x / grid.scale),
        y=float32(grid.y / grid.scale),
        z=float32(height),
        customdata=float32(np.dstack([grid.loss, 100 * grid.accuracy])),
        hovertemplate="(%{x:.2f}, %{y:.2f})<br>" + value_hover(grid.loss_unit) + "<extra></extra>",
        coloraxis="coloraxis",
        contours={"z": {"show": True, "color": "#8b8e99", "project": {"z": True}}
                  | scale.levels()},
        name="surface",
    )  # fmt: skip
    top = scale.high + 0.12 * (scale.high - scale.low)
    models = marks(surface, method)
    figure.add_traces([_pin(mark, grid, height, top, dark) for mark in models])
    figure.update_layout(
        scene=_scene(scale, dark, compact) | {"annotations": [_flag(m, top, dark) for m in models]},
        showlegend=False,
        coloraxis={"cmin": scale.low, "cmax": scale.high, "colorscale": scale.colours}
        | {"showscale": False},
    )
    return figure


def _pin(
    mark: Mark, grid: Surface, height: NDArray[np.float64], top: float, dark: bool
) -> go.Scatter3d:
    """Draw a model on the landscape, with a pin that reaches above all heights."""
    row = int(np.argmin(np.abs(grid.y / grid.scale - mark.y)))
    column = int(np.argmin(np.abs(grid.x / grid.scale - mark.x)))
    ground = height[row, column]
    ground = float(ground) if np.isfinite(ground) else float(np.nanmin(height))
    return go.Scatter3d(
        x=[mark.x] * 2,
        y=[mark.y] * 2,
        z=[ground, top],
        mode="lines+markers",
        line={"color": mark.colour if mark.role in {"pi", "bend"} else inks(dark).axis, "width": 4},
        marker={"symbol": SYMBOLS_3D[mark.role], "size": [6, 0.1], "color": mark.colour}
        | {"line": {"color": "#ffffff", "width": 2}},
        hovertemplate=f"{mark.label}<extra></extra>",
        name=mark.label,
    )


def _flag(mark: Mark, top: float, dark: bool) -> dict[str, Any]:
    """Draw the label of a pin, on a plate of its own: the surface behind it may be dark."""
    plate = {"bgcolor": faded(inks(dark).background, 0.85), "borderpad": 2, "showarrow": False}
    font = {"size": 14, "color": inks(dark).text}
    return plate | {"x": mark.x, "y": mark.y, "z": top, "text": mark.label, "font": font}


def _scene(scale: ColourScale, dark: bool, compact: bool) -> dict[str, Any]:
    ink, (values, words) = inks(dark), scale.ticks()
    axis = {
        "backgroundcolor": CLEAR,
        "gridcolor": ink.grid,
        "color": ink.muted,
        "showspikes": False,
        "tickfont": {"size": 11},
        "nticks": 4 if compact else 6,
    }
    title = {"font": {"size": 12}}
    return {
        "xaxis": axis | {"title": title | {"text": "along A → B"}},
        "yaxis": axis | {"title": title | {"text": "across"}},
        "zaxis": axis
        | {"title": title | {"text": scale.title}, "tickvals": values, "ticktext": words},
        "aspectratio": {"x": 1.2, "y": 1.2, "z": 0.7},
        "camera": {"eye": {"x": -1.1, "y": -1.6, "z": 1.1}},
    }
