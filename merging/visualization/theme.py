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

from merging.schema.cards.titles import NAIVE, method_title
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
    background="#ffffff",
    text="#31333f",
    muted="#5b5e6b",
    grid="#e3e5ea",
    axis="#8b8e99",
    shade="rgba(49,51,63,0.06)",
    alarm="#b3261e",
)
DARK = Inks(
    background="#0e1117",
    text="#fafafa",
    muted="#b4b7c1",
    grid="#2b303b",
    axis="#7d818c",
    shade="rgba(250,250,250,0.07)",
    alarm="#ff8a80",
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
        """Return the method's colour in the dark or the light theme."""
        return self.dark if dark else self.light


METHOD_STYLES = MappingProxyType({
    NAIVE: MethodStyle(
        title=method_title(NAIVE), light="#666666", dark="#9a9a9a", symbol="circle", glyph="●"
    ),
    "activation": MethodStyle(
        title=method_title("activation"), light="#0072B2", dark="#3d9ad8", symbol="star", glyph="★"
    ),
    "weight": MethodStyle(
        title=method_title("weight"),
        light="#009E73",
        dark="#00b584",
        symbol="triangle-up",
        glyph="▲",
    ),
    "straight_through": MethodStyle(
        title=method_title("straight_through"),
        light="#D55E00",
        dark="#e8762a",
        symbol="pentagon",
        glyph="⬟",
    ),
})
# Trained paths and what belongs to them: as far from the four methods as those are among
# themselves, also to readers with colour-vision deficiencies.
PATH_STYLE = MethodStyle(
    title="Trained path", light="#C0639A", dark="#F0A0D0", symbol="diamond", glyph="◆"
)


@dataclass(frozen=True)
class LineStyle:
    """How one of several lines looks that are not matching methods."""

    colour: str
    symbol: str
    dash: str


@dataclass(frozen=True)
class _Line:
    """A line's colours in both themes, its marker and its dash."""

    light: str
    dark: str
    symbol: str
    dash: str


# Apart under the three colour-vision deficiencies, and by marker and dash as well.
_LINES = (
    _Line(light="#0072B2", dark="#3d9ad8", symbol="circle", dash="solid"),
    _Line(light="#D55E00", dark="#e8762a", symbol="square", dash="dash"),
    _Line(light="#009E73", dark="#00b584", symbol="diamond", dash="dot"),
    _Line(light="#8a5a9e", dark="#c39bd6", symbol="triangle-up", dash="dashdot"),
    _Line(light="#666666", dark="#9a9a9a", symbol="x", dash="longdash"),
    _Line(light="#a86c00", dark="#d9a036", symbol="star", dash="solid"),
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
    """Return the colours of the dark or the light theme."""
    return DARK if dark else LIGHT


def method_style(method: str) -> MethodStyle:
    """Look up how a method is drawn.

    Args:
        method: `NAIVE` or the name of a matching method.

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
    """Return how line number `k` looks; after the last style the first comes again."""
    line = _LINES[k % len(_LINES)]
    return LineStyle(line.dark if dark else line.light, line.symbol, line.dash)


def float32(values: ArrayLike) -> NDArray[np.float32]:
    """Shrink numbers for the browser; what is not finite becomes NaN, which draws as a gap."""
    array = np.asarray(values, dtype=np.float32)
    return np.where(np.isfinite(array), array, np.float32("nan"))


def faded(colour: str, opacity: float) -> str:
    """Write a `#rrggbb` colour as `rgba(...)` with an opacity from 0 to 1.

    Example:
        >>> faded("#0072B2", 0.2)
        'rgba(0,114,178,0.2)'
    """
    red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


@cache
def template(dark: bool) -> go.layout.Template:
    """Return the light or the dark template; its paper is clear, so the page shows through."""
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
    """Return the look of a colour bar."""
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
    """Return a figure with nothing on it yet, in the dark or the light theme."""
    return go.Figure(
        layout={"template": template(dark), "height": height, "margin": margin, "dragmode": False}
    )
