"""Loss surfaces on planes through weight space, side by side on one scale."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from merging.schema.records.curve import Metric
from merging.schema.records.surface import Surface
from merging.schema.records.swag import SwagSamples
from merging.visualization.surfaces.colour_scale import ColourScale, colour_scale
from merging.visualization.surfaces.grid import Shown, is_rough, shown_part
from merging.visualization.surfaces.models_on_plane import add_points
from merging.visualization.surfaces.panels import (
    AXIS_ROOM,
    BAR_ROOM,
    LINE_ROOM,
    Panel,
    Sheet,
    lay_out,
)
from merging.visualization.surfaces.swag_samples import add_samples
from merging.visualization.theme import CLEAR, blank_figure, float32, inks, method_style
from merging.visualization.wording import counted, value_hover

DISTANCE = "Distance, in units of ‖B − A‖"
DIRECTIONS = "Distance, in lengths of the direction"
PROBES = 26
LOW = 215  # pixels of height that the words beside a panel need


@dataclass(frozen=True)
class NamedSurface:
    """A surface, its title, and the method whose colour its aligned model takes.

    Attributes:
        title: What stands above it.
        method: The method.
        surface: What was measured.
        samples: Samples of SWAG, projected on its plane.
    """

    title: str
    method: str
    surface: Surface
    samples: tuple[SwagSamples, ...] = ()


def plot_surfaces(
    surfaces: Sequence[NamedSurface],
    *,
    metric: Metric = "loss",
    shared_scale: bool = True,
    cap: float | None = None,
    dark: bool = False,
    compact: bool = False,
) -> go.Figure:
    """Draw surfaces as heat maps with contour lines, with the models that lie on them.

    Colours show the logarithm of the loss, dark blue where it is low; for accuracy the map is
    reversed, so that dark blue is good in either. A surface that is rough or has holes goes
    without contour lines: they would trace the noise. A grid in the middle of its evaluation shows
    its finest complete level.

    Args:
        surfaces: One panel each.
        metric: What the colours show.
        shared_scale: Whether all panels share one colour scale, so that colours compare.
        cap: Loss (or, for accuracy, least accuracy) beyond which colours do not change.
        dark: Whether the page is dark.
        compact: Whether the figure must fit a phone: panels one below the other.

    Returns:
        The figure. The trace named `probe` of each panel is invisible and answers clicks.
    """
    sheet = lay_out([named.surface for named in surfaces], shared_scale, compact)
    figure = blank_figure(dark, sheet.height, sheet.margin)
    parts = [shown_part(named.surface) for named in surfaces]
    scales = [colour_scale(parts if shared_scale else [part], metric, cap) for part in parts]
    for named, part, scale, panel in zip(surfaces, parts, scales, sheet.panels, strict=True):
        axis = "coloraxis" if shared_scale else f"coloraxis{panel.suffix}"
        _add_surface(figure, part, scale, panel, axis)
        crowds = [(samples.mean.x, samples.mean.y) for samples in named.samples]
        add_points(figure, named.method, named.surface, panel, crowds)
        add_samples(figure, named.samples, scale, named.surface.scale, panel, axis)
        _add_probe(figure, part, panel, dark)
        _lay_out_panel(figure, named, panel, sheet.inner, dark, compact)
        bar = _colour_axis(scale, sheet, None if shared_scale else panel)
        figure.update_layout({axis: bar}, showlegend=False)
    _add_caption(figure, parts, shared_scale, dark, compact)
    return figure


def _add_surface(
    figure: go.Figure, part: Shown, scale: ColourScale, panel: Panel, axis: str
) -> None:
    grid = part.surface
    z = scale.coordinate(part)
    shared: dict[str, Any] = {
        "x": float32(grid.x / grid.scale),
        "y": float32(grid.y / grid.scale),
        "z": float32(z),
        "xaxis": f"x{panel.suffix}",
        "yaxis": f"y{panel.suffix}",
    }
    smooth = part.whole and not is_rough(np.clip(z, scale.low, scale.high))
    figure.add_heatmap(
        **shared,
        coloraxis=axis,
        zsmooth="best" if smooth else False,
        customdata=float32(np.dstack([grid.loss, 100 * grid.accuracy])),
        hovertemplate=_hover(grid),
        name="surface",
    )
    if smooth:
        figure.add_contour(
            **shared,
            autocontour=False,
            contours={"coloring": "none", **scale.levels()},
            line={"width": 1, "color": "rgba(255,255,255,0.55)"},
            showscale=False,
            hoverinfo="skip",
            name="level lines",
        )
    _add_blanks(figure, grid, panel)


def _add_blanks(figure: go.Figure, grid: Surface, panel: Panel) -> None:
    """Draw a cross at every point that was evaluated and is not finite."""
    rows, columns = np.nonzero(grid.evaluated & ~np.isfinite(grid.loss))
    if rows.size == 0:
        return
    figure.add_scatter(
        x=float32(grid.x[columns] / grid.scale),
        y=float32(grid.y[rows] / grid.scale),
        xaxis=f"x{panel.suffix}",
        yaxis=f"y{panel.suffix}",
        mode="markers",
        marker={"symbol": "x-thin", "size": 5, "line": {"width": 1, "color": "#8b8e99"}},
        hovertemplate="(%{x:.2f}, %{y:.2f}) loss is not finite<extra></extra>",
        showlegend=False,
        name="not finite",
    )


def _hover(grid: Surface) -> str:
    return f"(%{{x:.2f}}, %{{y:.2f}})<br>{value_hover(grid.loss_unit)}<extra></extra>"


def _add_probe(figure: go.Figure, part: Shown, panel: Panel, dark: bool) -> None:
    """Draw invisible points over the heat map: Streamlit hears of clicks on these only."""
    grid = part.surface
    columns = np.unique(np.linspace(0, grid.x.size - 1, min(PROBES, grid.x.size)).round())
    rows = np.unique(np.linspace(0, grid.y.size - 1, min(PROBES, grid.y.size)).round())
    j, i = (index.ravel() for index in np.meshgrid(columns.astype(int), rows.astype(int)))
    i, j = i[grid.evaluated[i, j]], j[grid.evaluated[i, j]]
    figure.add_scatter(
        x=float32(grid.x[j] / grid.scale),
        y=float32(grid.y[i] / grid.scale),
        customdata=float32(np.stack([grid.loss[i, j], 100 * grid.accuracy[i, j]], axis=1)),
        xaxis=f"x{panel.suffix}",
        yaxis=f"y{panel.suffix}",
        mode="markers",
        marker={"size": 10, "color": CLEAR},
        hovertemplate=_hover(grid),
        selected={"marker": {"color": inks(dark).text, "opacity": 1}},
        unselected={"marker": {"opacity": 0}},
        showlegend=False,
        name="probe",
    )


def _lay_out_panel(
    figure: go.Figure,
    named: NamedSurface,
    panel: Panel,
    inner: int,
    dark: bool,
    compact: bool,
) -> None:
    suffix, grid, style = panel.suffix, named.surface, method_style(named.method)
    word = DISTANCE if grid.scale != 1 else DIRECTIONS
    beside = word if compact or panel.index == 0 or panel.x_domain == (0.0, 1.0) else ""
    low = inner * (panel.y_domain[1] - panel.y_domain[0]) < LOW
    if low:  # no room for words beside so low a panel
        word, beside = f"{word} (both axes)", ""
    shared = {"showgrid": False, "nticks": 6, "constrain": "domain", "constraintoward": "bottom"}
    figure.update_layout({
        f"xaxis{suffix}": shared | {
            "domain": panel.x_domain,
            "anchor": f"y{suffix}",
            "constraintoward": "center",
            "title": {"text": word, "font": {"size": 13}},
            "range": [float(end) / grid.scale for end in (grid.x[0], grid.x[-1])],
        },
        f"yaxis{suffix}": shared | {
            "domain": panel.y_domain,
            "anchor": f"x{suffix}",
            "title": {"text": beside, "font": {"size": 13}},
            "nticks": 4 if low else 6,
            "range": [float(end) / grid.scale for end in (grid.y[0], grid.y[-1])],
            "scaleanchor": f"x{suffix}",
        },
    })  # fmt: skip
    figure.add_annotation(
        text=f'<span style="color:{style.colour(dark)}">{style.glyph}</span> {named.title}',
        x=0, y=1, xref=f"x{suffix} domain", yref=f"y{suffix} domain", xanchor="left",
        yanchor="bottom", yshift=5, font_size=15,
    )  # fmt: skip


def _colour_axis(scale: ColourScale, sheet: Sheet, panel: Panel | None) -> dict[str, Any]:
    """Return a colour axis with a bar below its panel, or below all of them."""
    values, words = scale.ticks()
    low, high = panel.x_domain if panel else sheet.bar_domain
    bar = {
        "orientation": "h",
        "x": (low + high) / 2,
        "xanchor": "center",
        "len": high - low,
        "y": (panel.y_domain[0] if panel else 0) - AXIS_ROOM / sheet.inner,
        "yanchor": "top",
        "xpad": 0,
        "ypad": 0,  # it would count above and below the bar
        "tickvals": values,
        "ticktext": words,
        "tickangle": 0,
        "title": {"text": scale.title, "side": "bottom"},
    }
    return {"cmin": scale.low, "cmax": scale.high, "colorscale": scale.colours, "colorbar": bar}


def _add_caption(
    figure: go.Figure, parts: Sequence[Shown], shared: bool, dark: bool, compact: bool
) -> None:
    """Write below the panels what is missing, and whether colours compare."""
    contoured = sum(trace.type == "contour" for trace in figure.data)
    lost = sum(part.surface.non_finite for part in parts)
    coarse = [part.surface.loss.shape for part in parts if not part.finest]
    notes = {
        f"{counted(lost, 'point')} not finite (×), left blank": lost > 0,
        f"coarse grid so far, {' × '.join(map(str, coarse[0])) if coarse else ''}": bool(coarse),
        "still being evaluated": not all(part.whole for part in parts),
        "too noisy, or too full of holes, for level lines": contoured
        < sum(part.whole for part in parts),
    }
    lines = textwrap.wrap(
        " · ".join(note for note, holds in notes.items() if holds), 48 if compact else 150
    )
    if not shared and len(parts) > 1:
        lines.insert(0, f'<span style="color:{inks(dark).alarm}"><b>Scales differ</b></span>')
    if lines:
        room = LINE_ROOM * len(lines)
        margin = {"b": figure.layout.margin.b + room}
        figure.update_layout(height=figure.layout.height + room, margin=margin)
        figure.add_annotation(
            text="<br>".join(lines), x=0, y=0, xref="paper", yref="paper", xanchor="left",
            yanchor="top", yshift=-AXIS_ROOM - BAR_ROOM, align="left",
            font={"size": 13, "color": inks(dark).muted},
        )  # fmt: skip
