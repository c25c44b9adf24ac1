"""Colours, markers, dashes, type and the two templates that every figure shares.

Colour and marker name the method, the dash names the split, so that no figure depends on colour
alone. Every colour has a contrast of at least 3:1 against the background it is drawn on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

from merging.schema.errors import UnknownNameError

FONT = '"Source Sans", "Source Sans Pro", "Source Sans 3", sans-serif'
CLEAR = "rgba(0,0,0,0)"

Dash = Literal["solid", "dash"]


@dataclass(frozen=True)
class Inks:
    """The colours of one theme that do not name a method."""

    background: str
    text: str
    muted: str
    grid: str
    axis: str
    shade: str
    alarm: str


LIGHT = Inks(
    "#ffffff", "#31333f", "#5b5e6b", "#e3e5ea", "#8b8e99", "rgba(49,51,63,0.06)", "#b3261e"
)
DARK = Inks(
    "#0e1117", "#fafafa", "#b4b7c1", "#2b303b", "#7d818c", "rgba(250,250,250,0.07)", "#ff8a80"
)


@dataclass(frozen=True)
class MethodStyle:
    """How one method looks: its name on screen, its two colours, its marker."""

    title: str
    light: str
    dark: str
    symbol: str
    glyph: str

    def colour(self, dark: bool) -> str:
        """The method's colour in the dark or the light theme."""
        return self.dark if dark else self.light


METHOD_STYLES = MappingProxyType({
    "naive": MethodStyle("Naive", "#666666", "#9a9a9a", "circle", "●"),
    "activation": MethodStyle("Activation matching", "#0072B2", "#3d9ad8", "star", "★"),
    "weight": MethodStyle("Weight matching", "#009E73", "#00b584", "triangle-up", "▲"),
    "straight_through": MethodStyle("Straight-through", "#D55E00", "#e8762a", "pentagon", "⬟"),
})
# Trained paths and what belongs to them: as far from the four methods as those are among
# themselves, also to readers with colour-vision deficiencies.
PATH_STYLE = MethodStyle("Trained path", "#C0639A", "#F0A0D0", "diamond", "◆")


@dataclass(frozen=True)
class LineStyle:
    """How one of several lines looks that are no matching methods."""

    colour: str
    symbol: str
    dash: str


# Apart under the three colour-vision deficiencies, and by marker and dash as well.
_LINES = (
    ("#0072B2", "#3d9ad8", "circle", "solid"),
    ("#D55E00", "#e8762a", "square", "dash"),
    ("#009E73", "#00b584", "diamond", "dot"),
    ("#8a5a9e", "#c39bd6", "triangle-up", "dashdot"),
    ("#666666", "#9a9a9a", "x", "longdash"),
    ("#a86c00", "#d9a036", "star", "solid"),
)
LEGEND_ABOVE = MappingProxyType({"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"})

CIVIDIS = (
    "#00224e", "#123570", "#3b496c", "#575d6d", "#707173",
    "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838",
)  # fmt: skip
CIVIDIS_REVERSED = CIVIDIS[::-1]
DIVERGING_LIGHT = ("#7f3b08", "#b35806", "#e08214", "#fdb863", "#fee0b6", "#f7f7f7",
                   "#d8daeb", "#b2abd2", "#8073ac", "#542788", "#2d004b")  # fmt: skip
DIVERGING_DARK = ("#fee0b6", "#fdb863", "#e08214", "#b35806", "#5f3413", "#15181f",
                  "#3a2f5c", "#6a52a3", "#9485c4", "#b2abd2", "#d8daeb")  # fmt: skip


def inks(dark: bool) -> Inks:
    """The colours of the dark or the light theme."""
    return DARK if dark else LIGHT


def method_style(method: str) -> MethodStyle:
    """Look up how a method is drawn.

    Args:
        method: `"naive"` or the name of a matching method.

    Returns:
        Its title, colours and marker.

    Raises:
        UnknownNameError: If no such method has a style.
    """
    if method not in METHOD_STYLES:
        choices = ", ".join(repr(name) for name in METHOD_STYLES)
        raise UnknownNameError(f"no style for the method {method!r}; choose from {choices}")
    return METHOD_STYLES[method]


def line_style(k: int, dark: bool) -> LineStyle:
    """How the line number `k` looks; after the last style the first comes again."""
    light, deep, symbol, dash = _LINES[k % len(_LINES)]
    return LineStyle(deep if dark else light, symbol, dash)


def float32(values: ArrayLike) -> NDArray[np.float32]:
    """Shrink numbers for the browser; what is not finite becomes NaN, which draws as a gap."""
    array = np.asarray(values, dtype=np.float32)
    return np.where(np.isfinite(array), array, np.float32("nan"))


def faded(colour: str, opacity: float) -> str:
    """A `#rrggbb` colour as `rgba(...)` with an opacity from 0 to 1.

    Example:
        >>> faded("#0072B2", 0.2)
        'rgba(0,114,178,0.2)'
    """
    red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


@cache
def template(dark: bool) -> go.layout.Template:
    """The light or the dark template; the paper is clear, so the page shows through."""
    ink = inks(dark)
    axis: dict[str, Any] = {
        "gridcolor": ink.grid,
        "linecolor": ink.axis,
        "tickcolor": ink.axis,
        "ticks": "outside",
        "ticklen": 4,
        "zeroline": False,
        "automargin": False,
        "title": {"standoff": 8, "font": {"size": 14, "color": ink.text}},
        "tickfont": {"size": 13, "color": ink.muted},
    }
    layout = go.Layout(
        font={"family": FONT, "size": 14, "color": ink.text},
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        colorway=[style.colour(dark) for style in METHOD_STYLES.values()],
        xaxis=axis,
        yaxis=axis,
        hoverlabel={
            "bgcolor": ink.background,
            "bordercolor": ink.axis,
            "font": {"family": FONT, "size": 13, "color": ink.text},
            "align": "left",
            "namelength": -1,
        },
        legend={"bgcolor": CLEAR, "font": {"size": 13, "color": ink.text}},
        annotationdefaults={"showarrow": False, "font": {"size": 13, "color": ink.text}},
        coloraxis={"colorbar": colour_bar(dark)},
        modebar={"bgcolor": CLEAR, "color": ink.axis, "activecolor": ink.text},
    )
    return go.layout.Template(layout=layout)


def colour_bar(dark: bool) -> dict[str, Any]:
    """The look of a colour bar."""
    ink = inks(dark)
    return {
        "outlinewidth": 0,
        "thickness": 12,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": ink.axis,
        "tickfont": {"size": 12, "color": ink.muted},
        "title": {"font": {"size": 13, "color": ink.text}},
    }


def blank_figure(dark: bool, height: int, margin: dict[str, int]) -> go.Figure:
    """A figure with nothing on it yet, in the dark or the light theme."""
    return go.Figure(
        layout={"template": template(dark), "height": height, "margin": margin, "dragmode": False}
    )
