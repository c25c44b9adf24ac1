"""Round values for axes that cannot find their own: logarithms shown in plain units."""

from __future__ import annotations

from typing import Any

import numpy as np


def round_values(low: float, high: float) -> list[float]:
    """Return values 1, 2 and 5 times a power of ten, or even steps if too few."""
    exponents = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    values = [digit * 10.0**exponent for exponent in exponents for digit in (1, 2, 5)]
    inside = [value for value in values if low <= value <= high]
    if len(inside) > 8:
        inside = [value for value in inside if f"{value:e}".startswith("1.0")]
    return inside if len(inside) >= 3 else even_values(low, high)


def even_values(low: float, high: float) -> list[float]:
    """Return about five round values, evenly spaced."""
    rough = (high - low) / 5
    power = 10.0 ** np.floor(np.log10(rough))
    step = power * min((digit for digit in (1, 2, 5, 10)), key=lambda d: abs(d * power - rough))
    first = np.ceil(low / step)
    count = int(np.floor(high / step) - first) + 1
    return [float(f"{(first + k) * step:.6g}") for k in range(count)]


def whole_ticks(most: float, ticks: int) -> dict[str, Any]:
    """Return axis settings for numbers of units: few units get a tick each, never a half one.

    Example:
        >>> whole_ticks(2, 5), whole_ticks(512, 5)
        ({'dtick': 1}, {'nticks': 5})
    """
    return {"dtick": 1} if most <= ticks else {"nticks": ticks}
