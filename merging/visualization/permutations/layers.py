"""What alignment did to every layer, as pairs of bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from merging.schema.cards.titles import NAIVE
from merging.schema.errors import UnknownNameError
from merging.schema.records.alignment import LayerRow
from merging.schema.records.loss_unit import LossUnit, shared_unit
from merging.visualization.theme import blank_figure, float32, inks, method_style
from merging.visualization.ticks import round_values
from merging.visualization.wording import counted, label

Quantity = Literal["distance", "cosine", "barrier", "variance"]
LETTER_PIXELS = 7  # about the mean width of a letter at the size of tick labels


@dataclass(frozen=True)
class QuantityStyle:
    """What one quantity is called on its axis, and in a sentence.

    Attributes:
        axis: What the axis says, with the unit unless that is the loss's.
        words: What a sentence says.
        is_loss: Whether its unit is that of the loss.
    """

    axis: str
    words: str
    is_loss: bool = False

    def axis_title(self, unit: LossUnit) -> str:
        """Return the axis' title, for losses in this unit."""
        return f"{self.axis} ({unit})" if self.is_loss else self.axis

    def sentence_words(self, unit: LossUnit) -> str:
        """Return what a sentence calls it with its unit, for losses in this unit."""
        return f"{self.words} ({unit})" if self.is_loss else self.words


QUANTITIES = MappingProxyType({
    "distance": QuantityStyle("Distance between A and B (L2 norm)", "distance"),
    "cosine": QuantityStyle("Cosine similarity of A and B", "cosine similarity"),
    "barrier": QuantityStyle("Loss barrier of this layer alone", "loss barrier", is_loss=True),
    "variance": QuantityStyle("Variance at the midpoint, share of the ends’", "variance"),
})


@dataclass(frozen=True, eq=False)
class LayerValues:
    """The rows that can be drawn, and how many cannot.

    Attributes:
        names: Full names of the layers.
        before: `[n]` values before alignment.
        after: `[n]` values after.
        left_out: Rows without a finite value (without a positive one for a variance).
        unit: Unit of the loss.
    """

    names: tuple[str, ...]
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    left_out: int
    unit: LossUnit = "nats"


def layer_values(rows: Sequence[LayerRow], quantity: Quantity) -> LayerValues:
    """Collect one quantity of every row that has it.

    Args:
        rows: The layers.
        quantity: Which quantity.

    Returns:
        The values before and after alignment.

    Raises:
        UnknownNameError: If `quantity` is none of its choices.
    """
    if quantity not in QUANTITIES:
        choices = ", ".join(repr(name) for name in QUANTITIES)
        raise UnknownNameError(f"unknown quantity of layers {quantity!r}; choose from {choices}")
    pairs = np.array([
        [getattr(row, f"{quantity}_{when}") for when in ("before", "after")] for row in rows
    ]).reshape(-1, 2)
    usable = np.isfinite(pairs).all(axis=1)
    if quantity == "variance":
        usable &= (pairs > 0).all(axis=1)
    names = tuple(row.layer for row, use in zip(rows, usable, strict=True) if use)
    return LayerValues(
        names=names,
        before=pairs[usable, 0],
        after=pairs[usable, 1],
        left_out=int((~usable).sum()),
        unit=shared_unit(row.loss_unit for row in rows),
    )


def plot_layers(
    rows: Sequence[LayerRow],
    *,
    quantity: Quantity = "distance",
    method: str = "weight",
    dark: bool = False,
    compact: bool = False,
) -> go.Figure:
    """Draw a quantity of every layer, before alignment in grey and after in the method's colour.

    Args:
        rows: The layers, in the order of the model.
        quantity: What the bars show. Variances are drawn from 1, on a logarithmic axis.
        method: Whose colour the aligned bars take.
        dark: Whether the page is dark.
        compact: Whether the figure must fit a phone.

    Returns:
        The figure; layers without the quantity are left out and counted.
    """
    values = layer_values(rows, quantity)
    names = [label(name, 16 if compact else 28) for name in values.names]
    left = LETTER_PIXELS * max(map(len, names), default=0) + 24
    margin = {"l": left, "r": 20, "t": 44, "b": 76 if values.left_out else 52}
    height = margin["t"] + margin["b"] + max(34 * len(values.names), 60)
    figure = blank_figure(dark, height, margin)
    naive, style = method_style(NAIVE), method_style(method)
    figure.add_trace(_bars(values, values.before, quantity, naive.colour(dark), naive.title))
    figure.add_trace(_bars(values, values.after, quantity, style.colour(dark), style.title))
    if quantity == "variance":
        figure.add_vline(x=1, line={"color": inks(dark).text, "width": 1.5})
    if values.left_out:
        figure.add_annotation(
            text=f"{counted(values.left_out, 'layer')} without this value left out", x=0, y=0,
            xref="paper", yref="paper", xanchor="left", yanchor="top", yshift=-50,
            font={"size": 13, "color": inks(dark).muted},
        )  # fmt: skip
    _lay_out_axes(figure, values, names, quantity, compact)
    if not names:
        figure.update_layout(showlegend=False, xaxis={"showticklabels": False, "ticks": ""})
        figure.update_yaxes(showticklabels=False, ticks="")
    return figure


def _bars(
    values: LayerValues, lengths: NDArray[np.float64], quantity: Quantity, colour: str, name: str
) -> go.Bar:
    ends: dict[str, Any] = {"x": float32(lengths)}
    if quantity == "variance":
        ends = {"x": float32(lengths - 1), "base": np.ones(lengths.size, np.float32)}
    return go.Bar(
        **ends,
        y=np.arange(lengths.size, dtype=np.int16),
        customdata=[
            [label(name), float(f"{v:.5g}")] for name, v in zip(values.names, lengths, strict=True)
        ],
        orientation="h",
        marker={"color": colour, "line": {"width": 0}},
        name=name,
        hovertemplate="%{customdata[0]}: %{customdata[1]:.4g}<extra>" + name + "</extra>",
    )


def _lay_out_axes(
    figure: go.Figure,
    values: LayerValues,
    names: Sequence[str],
    quantity: Quantity,
    compact: bool,
) -> None:
    count = len(values.names)
    across: dict[str, Any] = {"title": {"text": QUANTITIES[quantity].axis_title(values.unit)}}
    across["nticks"] = 5 if compact else 9
    if quantity == "variance":
        both = np.log10(np.concatenate([values.before, values.after, [1.0]]))
        pad = max(0.06 * float(np.ptp(both)), 0.03)
        across |= {"type": "log", "range": [float(both.min()) - pad, float(both.max()) + pad]}
        ticks = round_values(*(10 ** np.array(across["range"])))
        across |= {"tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
    figure.update_layout(
        barmode="group",
        bargap=0.3,
        bargroupgap=0.08,
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "traceorder": "normal"},
        xaxis=across,
        yaxis={
            "range": [count - 0.5, -0.5],
            "tickvals": np.arange(count, dtype=np.int16),
            "ticktext": list(names),
            "showgrid": False,
        },
    )
