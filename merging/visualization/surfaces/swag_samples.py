"""Samples of SWAG on a surface: where they project to, in the colour of their own loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from merging.schema.records.swag import SwagSamples
from merging.visualization.surfaces.colour_scale import ColourScale, coloured
from merging.visualization.surfaces.panels import Panel
from merging.visualization.theme import float32
from merging.visualization.wording import value_hover


def add_samples(
    figure: go.Figure,
    samples: Sequence[SwagSamples],
    scale: ColourScale,
    length: float,
    panel: Panel,
    axis: str,
) -> None:
    """Draw samples as small diamonds on the colour scale of the surface below them.

    A sample lies off the plane, so its colour is not that of the plane under it: the difference
    is what the other directions do.

    Args:
        figure: The figure to draw on.
        samples: One record per model.
        scale: The panel's colours.
        length: What the figure calls 1.
        panel: Where on the figure.
        axis: The colour axis.
    """
    for around in samples:
        places = np.array([(p.x, p.y, p.residual) for p in around.points]) / length
        figure.add_scatter(
            x=float32(places[:, 0]),
            y=float32(places[:, 1]),
            xaxis=f"x{panel.suffix}",
            yaxis=f"y{panel.suffix}",
            mode="markers",
            marker={
                "symbol": "diamond",
                "size": 8,
                "color": float32(coloured(around.loss, around.accuracy, scale.metric)),
                "coloraxis": axis,
                "line": {"width": 1, "color": "#ffffff"},
            },
            customdata=float32(np.column_stack([around.loss, 100 * around.accuracy, places[:, 2]])),
            hovertemplate="SWAG sample (%{x:.2f}, %{y:.2f})<br>"
            f"{value_hover(around.loss_unit)}<br>%{{customdata[2]:.2f}} off the plane"
            "<extra></extra>",
            showlegend=False,
            name=f"SWAG samples around {around.around}",
        )
