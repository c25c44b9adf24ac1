"""Curves as they are drawn: named, in the units of the screen, with their standard errors."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from merging.schema.records.curve import Curve, Metric
from merging.visualization.theme import PATH_STYLE, MethodStyle, float32, method_style


@dataclass(frozen=True)
class NamedCurve:
    """A curve and the method whose colour it takes.

    Attributes:
        method: `NAIVE` or the name of a matching method.
        curve: What was measured; its split decides the dash.
        label: What the legend says; the method's title if None.
        on_path: Whether the curve is along a trained path: drawn in the paths' colour, with the
            hollow marker of the method.
    """

    method: str
    curve: Curve
    label: str | None = None
    on_path: bool = False

    @property
    def title(self) -> str:
        """What the legend calls the curve, without the split."""
        return self.label or self.style.title

    @property
    def style(self) -> MethodStyle:
        """Colours and marker."""
        own = method_style(self.method)
        return replace(PATH_STYLE, symbol=own.symbol, glyph=own.glyph) if self.on_path else own


@dataclass(frozen=True, eq=False)
class CurveValues:
    """One metric of a curve: loss in the curve's unit, or accuracy in per cent.

    Attributes:
        lams: `[k]` positions.
        mean: `[k]` values; NaN where they are not finite.
        error: `[k]` standard errors.
    """

    lams: NDArray[np.float32]
    mean: NDArray[np.float32]
    error: NDArray[np.float32]

    @property
    def known(self) -> bool:
        """Whether there is any value: where numbers are predicted there is no accuracy."""
        return bool(np.isfinite(self.mean).any())


@dataclass(frozen=True)
class DrawnCurve:
    """A named curve with both metrics, so that errors over the examples are summed up once."""

    named: NamedCurve
    loss: CurveValues
    accuracy: CurveValues

    def values(self, metric: Metric) -> CurveValues:
        """Return the values of one metric."""
        return self.loss if metric == "loss" else self.accuracy


def draw(named: NamedCurve) -> DrawnCurve:
    """Work out what is drawn of a curve."""
    curve, lams = named.curve, float32(named.curve.lams)
    with np.errstate(invalid="ignore", over="ignore"):
        loss_error = float32(curve.standard_error("loss"))
        accuracy_error = float32(100 * curve.standard_error("accuracy"))
    return DrawnCurve(
        named,
        CurveValues(lams, float32(curve.loss), loss_error),
        CurveValues(lams, float32(100 * curve.accuracy), accuracy_error),
    )
