"""Rows of tables, and numbers in them."""

from __future__ import annotations

from typing import Any

import numpy as np


def _number(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


Row = dict[str, Any]


def _tiny(share: float) -> str:
    """A share that is next to nothing, or nothing at all."""
    return f"{share:.0e}" if share else "0"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return None if np.isnan(value) else round(value, 4)
    return value
