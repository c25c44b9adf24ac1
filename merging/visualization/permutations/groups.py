"""The permutation groups on the model's own layers: which axis of which parameter each one is on.

One row per layer (or per parameter, where those of a layer differ), one column per axis; a cell is
cut into the parts of a product or a concatenation. The number in a cell names the group, so that
nothing depends on its colour alone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from merging.schema.records.symmetry import SymmetrySummary
from merging.visualization.theme import blank_figure, inks
from merging.visualization.wording import counted, label

# Paul Tol's light scheme: made to be read through dark letters, and by colour-blind readers.
PALETTE = (
    "#77aadd", "#ee8866", "#eedd88", "#ffaabb", "#99ddff", "#44bb99", "#bbcc33", "#aaaa00",
)  # fmt: skip
LETTERS = "#1b1b1f"
ROW_PIXELS = 21
_HOVER = 200  # characters of a name where there is room
_LETTER_PIXELS = 7
_FIXED_LIGHT, _FIXED_DARK = "#e3e5ea", "#343a46"
_GAP = 0.05  # of a cell
_NEAR = 3  # rows within which two groups should not have one colour

Axes = tuple[tuple[str | None, ...], ...]


@dataclass(frozen=True)
class LayerAxes:
    """Parameters of one layer whose axes agree.

    Attributes:
        layer: The layer's name; the parameter's, where those of a layer differ.
        parameters: Their names.
        axes: What each axis runs over: names of groups, or None for what is fixed.
    """

    layer: str
    parameters: tuple[str, ...]
    axes: Axes


@dataclass(frozen=True)
class _Cell:
    """A part of an axis as it is drawn."""

    row: int
    left: float
    width: float
    colour: str
    text: str
    words: str


def read_axes(spec: str) -> dict[str, Axes]:
    """Read what every axis of every parameter runs over from a spec's JSON.

    Args:
        spec: JSON as `PermutationSpec.to_json` writes it.

    Returns:
        By parameter, for every axis its parts: a group's name, or None.

    Example:
        >>> read_axes('{"w": ["h", {"product": [["c", 3], [null, 4]]}]}')
        {'w': (('h',), ('c', None))}
    """
    return {
        name: tuple(tuple(_parts(entry)) for entry in axes)
        for name, axes in json.loads(spec).items()
    }


def layer_rows(axes: Mapping[str, Axes]) -> list[LayerAxes]:
    """Group parameters by layer, in the model's order; those that agree share a row.

    Args:
        axes: As `read_axes` gives them.

    Returns:
        The rows; parameters without axes are left out.
    """
    rows: list[LayerAxes] = []
    for name, own in axes.items():
        if not own:
            continue
        layer = name.rpartition(".")[0] or name
        if rows and rows[-1].layer == layer and _agree(rows[-1].axes, own):
            last = rows.pop()
            longer = max(last.axes, own, key=len)
            rows.append(LayerAxes(layer, (*last.parameters, name), longer))
        else:
            rows.append(LayerAxes(layer, (name,), own))
    layers = Counter(row.layer for row in rows)
    return [
        row if layers[row.layer] == 1 else LayerAxes(row.parameters[0], row.parameters, row.axes)
        for row in rows
    ]


def plot_groups(
    summary: SymmetrySummary, *, dark: bool = False, compact: bool = False
) -> go.Figure:
    """Draw which axes of which layers every permutation group is on.

    Args:
        summary: A certified spec.
        dark: Whether the page is dark.
        compact: Whether the figure must fit a phone.

    Returns:
        The figure: as tall as the model has layers.
    """
    rows = layer_rows(read_axes(summary.spec))
    columns = max((len(row.axes) for row in rows), default=1)
    names = [_short(row.layer, 14 if compact else 34) for row in rows]
    left = _LETTER_PIXELS * max(map(len, names), default=0) + 16
    margin = {"l": left, "r": 12, "t": 34, "b": 8}
    height = margin["t"] + margin["b"] + ROW_PIXELS * max(len(rows), 1)
    figure = blank_figure(dark, height, margin)
    colours = _colours(rows)
    cells = [
        cell
        for k, row in enumerate(rows)
        for cell in _cells(k, row, summary, colours, dark=dark, compact=compact)
    ]
    figure.add_trace(_bars(cells, dark))
    figure.update_xaxes(
        side="top", range=[0, columns], tickvals=[k + 0.5 for k in range(columns)], ticks="",
        ticktext=[_column(k, compact) for k in range(columns)], showgrid=False, fixedrange=True,
    )  # fmt: skip
    figure.update_yaxes(
        range=[len(rows) - 0.5, -0.5], tickvals=list(range(len(rows))), ticktext=names, ticks="",
        showgrid=False, fixedrange=True, tickfont={"size": 12},
    )  # fmt: skip
    for first, last in _stripes(rows):
        figure.add_hrect(
            first - 0.5, last + 0.5, fillcolor=inks(dark).shade, line_width=0, layer="below"
        )
    figure.update_layout(bargap=0.12, showlegend=False)
    return figure


def describe_groups(summary: SymmetrySummary) -> str:
    """Say the same in words.

    Args:
        summary: A certified spec.

    Returns:
        Sentences with the numbers.
    """
    rows = layer_rows(read_axes(summary.spec))
    if not summary.groups:
        return f"{counted(len(rows), 'layer')}, all axes fixed: nothing may be permuted."
    on: Counter[str] = Counter()
    for row in rows:
        on.update({part for axis in row.axes for part in axis if part is not None})
    widest = max(summary.groups, key=lambda group: on[group.name])
    number = summary.groups.index(widest) + 1
    return (
        f"{counted(len(summary.groups), 'permutation group')} on {counted(len(rows), 'layer')}. "
        f"The one on most layers is number {number}, {widest.name}, with "
        f"{counted(widest.units, 'unit')}: it is on {counted(on[widest.name], 'layer')}. "
        f"Axes that are fixed: {len(summary.frozen):,}."
    )


def _parts(entry: Any) -> list[str | None]:
    if entry is None or isinstance(entry, str):
        return [entry]
    if isinstance(entry, list):
        is_atom = len(entry) == 2 and isinstance(entry[1], int)
        return _parts(entry[0]) if is_atom else [p for item in entry for p in _parts(item)]
    if isinstance(entry, dict) and {"group", "fixed"} & set(entry):
        return [entry.get("group")]  # one atom; its parents have cells of their own
    if isinstance(entry, dict):
        return [part for item in entry.values() for part in _parts(item)]
    return []


def _agree(one: Axes, other: Axes) -> bool:
    return all(a == b for a, b in zip(one, other, strict=False))


def _colours(rows: Sequence[LayerAxes]) -> dict[str, str]:
    """Give every group a colour other than those of groups that stand near it."""
    where: dict[str, set[int]] = {}
    for k, row in enumerate(rows):
        for part in (part for axis in row.axes for part in axis if part is not None):
            where.setdefault(part, set()).add(k)
    colours: dict[str, str] = {}
    for number, (group, places) in enumerate(where.items()):
        around = {k + step for k in places for step in range(-_NEAR, _NEAR + 1)}
        taken = {colours[other] for other in colours if where[other] & around}
        order = [PALETTE[(number + k) % len(PALETTE)] for k in range(len(PALETTE))]
        colours[group] = next((colour for colour in order if colour not in taken), order[0])
    return colours


def _cells(
    number: int,
    row: LayerAxes,
    summary: SymmetrySummary,
    colours: Mapping[str, str],
    *,
    dark: bool,
    compact: bool,
) -> list[_Cell]:
    numbers = {group.name: k for k, group in enumerate(summary.groups)}
    units = {group.name: group.units for group in summary.groups}
    cells = []
    for axis, parts in enumerate(row.axes):
        width = (1 - _GAP) / len(parts)
        for k, part in enumerate(parts):
            left = axis + _GAP / 2 + k * width
            where = f"{label(', '.join(row.parameters), _HOVER)}<br>axis {axis}"
            if part in numbers:
                group = numbers[part]
                text = f"<b>{group + 1}</b>"
                if len(parts) == 1 and not compact:
                    text += f" · {units[part]:,}"
                words = (
                    f"group {group + 1}: {label(part, _HOVER)}<br>{units[part]:,} units<br>{where}"
                )
                colour = colours[part]
            else:
                text, colour = "", _FIXED_DARK if dark else _FIXED_LIGHT
                words = f"fixed: {label(_reason(row, axis, summary), _HOVER)}<br>{where}"
            cells.append(
                _Cell(row=number, left=left, width=width, colour=colour, text=text, words=words)
            )
    return cells


def _reason(row: LayerAxes, axis: int, summary: SymmetrySummary) -> str:
    for frozen in summary.frozen:
        if frozen.axis == axis and frozen.parameter in row.parameters:
            return frozen.reason
    return "it keeps its order"


def _bars(cells: Sequence[_Cell], dark: bool) -> go.Bar:
    return go.Bar(
        orientation="h",
        base=[round(cell.left, 4) for cell in cells],
        x=[round(cell.width, 4) for cell in cells],
        y=[cell.row for cell in cells],
        marker={
            "color": [cell.colour for cell in cells],
            "line": {"width": 1, "color": inks(dark).background},
        },
        text=[cell.text for cell in cells],
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        insidetextfont={"color": LETTERS, "size": 12},
        constraintext="none",
        customdata=[cell.words for cell in cells],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _short(layer: str, length: int) -> str:
    """Shorten a name, keeping its numbers and its last word: `b.0.a.query`."""
    words = layer.split(".")
    if len(layer) > length:
        words = [w if w.isdecimal() else w[:1] for w in words[:-1]] + words[-1:]
    return label(".".join(words), length)


def _column(axis: int, compact: bool) -> str:
    return str(axis) if compact else f"axis {axis}"


def _stripes(rows: Sequence[LayerAxes]) -> list[tuple[int, int]]:
    """Return every second block of layers: those whose names agree up to their first number."""
    blocks: list[list[int]] = []
    before = None
    for k, row in enumerate(rows):
        block = _block(row.layer)
        if block != before:
            blocks.append([k, k])
        blocks[-1][1] = k
        before = block
    return [(first, last) for first, last in blocks[1::2]] if len(blocks) > 2 else []


def _block(layer: str) -> str:
    words = layer.split(".")
    numbered = [k for k, word in enumerate(words) if word.isdecimal()]
    return ".".join(words[: numbered[0] + 1]) if numbered else words[0]
