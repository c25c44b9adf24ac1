"""From JSON to what records hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def tupled(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return JSON values as records hold them: lists become tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in meta.items()}
