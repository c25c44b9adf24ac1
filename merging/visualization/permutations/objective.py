"""Every method's own objective while it searches, one small panel each."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from merging.schema.records.alignment import Alignment
from merging.visualization.theme import blank_figure, float32, inks, method_style
from merging.visualization.wording import sentence_case


def plot_objectives(
    alignments: Sequence[Alignment], *, dark: bool = False, compact: bool = False
) -> go.Figure:
    """Draw the objectives as steps, one panel per method since their units differ.

    Works on runs that have only begun. Short ticks at the right show where every restart ended.

    Args:
        alignments: The runs; those of one method share a panel.
        dark: Whether the page is dark.
        compact: Whether the figure must fit a phone: one panel below the other.

    Returns:
        The figure.
    """
    methods = list(dict.fromkeys(run.method for run in alignments))
    count = max(len(methods), 1)
    height = 40 + 250 * count if compact else 320
    figure = blank_figure(dark, height, {"l": 84, "r": 16, "t": 40, "b": 52})
    for k, method in enumerate(methods):
        runs = [run for run in alignments if run.method == method]
        _lay_out_panel(figure, runs, k, count, dark, compact)
        for run in runs:
            figure.add_traces(_steps(run, "" if k == 0 else str(k + 1), dark))
    figure.update_layout(showlegend=False)
    return figure


def _steps(run: Alignment, suffix: str, dark: bool) -> list[go.Scatter]:
    colour, symbol = method_style(run.method).colour(dark), method_style(run.method).symbol
    axes = {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}
    n = len(run.objective)
    marker = {"color": colour, "symbol": symbol, "size": 7 if n <= 30 else 0.1}
    traces = [
        go.Scatter(
            x=np.arange(n, dtype=np.int32),  # the first value is that of the start
            y=float32(run.objective),
            **axes,
            mode="lines+markers",
            line={"color": colour, "width": 2, "shape": "hv"},
            marker=marker,
            hovertemplate="step %{x}: %{y:.5g}<extra></extra>",
            name=method_style(run.method).title,
        )
    ]
    if len(run.restarts) > 1:
        traces.append(
            go.Scatter(
                x=np.full(len(run.restarts), n - 1 + max(0.06 * n, 0.4), np.float32),
                y=float32(run.restarts),
                **axes,
                mode="markers",
                marker={"symbol": "line-ew-open", "size": 12, "color": colour, "line_width": 2},
                hovertemplate="a restart ended at %{y:.5g}<extra></extra>",
                name="restarts",
            )
        )
    return traces


def _flat_range(runs: Sequence[Alignment]) -> list[float] | None:
    """Return a range from zero for what never changes, else drawn around -1 to 1."""
    values = {value for run in runs for value in (*run.objective, *run.restarts)}
    if len(values) != 1:
        return None
    return sorted([0.0, 1.5 * values.pop()]) if values != {0.0} else None


def _lay_out_panel(
    figure: go.Figure, runs: Sequence[Alignment], k: int, count: int, dark: bool, compact: bool
) -> None:
    suffix = "" if k == 0 else str(k + 1)
    gap = 0.14 if not compact else 0.4 / count
    share = (1 - gap * (count - 1)) / count
    start = k * (share + gap)
    across, up = [start, min(start + share, 1.0)], [0.0, 1.0]
    if compact:
        across, up = [0.0, 1.0], [max(1 - start - share, 0.0), 1 - start]
    title = "<br>".join(textwrap.wrap(sentence_case(runs[0].objective_name), 26))
    last = max((len(run.objective) - 1 for run in runs), default=1)
    figure.update_layout({
        f"xaxis{suffix}": {
            "domain": across,
            "anchor": f"y{suffix}",
            "title": {"text": "Sweep or step" if compact or count < 4 else "Step"},
            "range": [-max(0.04 * last, 0.3), last + max(0.12 * last, 0.8)],
            "nticks": 5,
            "tickformat": "d",
        }
        | ({"dtick": 1} if last <= 6 else {}),
        f"yaxis{suffix}": {
            "domain": up,
            "anchor": f"x{suffix}",
            "title": {"text": title, "font": {"size": 13}},
            "nticks": 5,
            "range": _flat_range(runs),
        },
    })  # fmt: skip
    style = method_style(runs[0].method)
    empty = all(len(run.objective) == 0 for run in runs)
    figure.add_annotation(
        text=f'<span style="color:{style.colour(dark)}">{style.glyph}</span> {style.title}',
        x=0, y=1, xref=f"x{suffix} domain", yref=f"y{suffix} domain", xanchor="left",
        yanchor="bottom", yshift=5, font_size=15,
    )  # fmt: skip
    if empty:
        figure.add_annotation(
            text="no value yet", x=0.5, y=0.5, xref=f"x{suffix} domain",
            yref=f"y{suffix} domain", font={"size": 13, "color": inks(dark).muted},
        )  # fmt: skip
