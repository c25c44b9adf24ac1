"""Rows of tables, and numbers in them."""

from __future__ import annotations

from typing import Any

import numpy as np

Row = dict[str, Any]


def shown(value: Any) -> Any:
    """Return a number with six significant digits, and anything else unchanged."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def rounded(value: Any, decimals: int = 4) -> Any:
    """Round a number; None for NaN, and anything else unchanged."""
    if isinstance(value, float):
        return None if np.isnan(value) else round(value, decimals)
    return value


def tiny(share: float) -> str:
    """Write a share that is next to nothing, or nothing at all."""
    return f"{share:.0e}" if share else "0"
