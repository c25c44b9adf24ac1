"""The choice of what is done about statistics of hidden units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from merging.results import requests
from pages.shared import jobs, session
from pages.shared.option_widget import segments

STATISTICS = {
    "interpolated": "As interpolated",
    "reset": "RESET",
    "repair": "REPAIR",
    "rescale": "RESCALE",
}


def statistics_choice(options: Sequence[str], *, key: str) -> Any:
    """Let a person choose what is done about the statistics of hidden units."""
    return segments(
        "Statistics of hidden units",
        options,
        default="interpolated",
        format_func=STATISTICS.__getitem__,
        key=key,
        bind="query-params",
        help=(
            "RESET re-estimates the running statistics of BatchNorm on "
            f"{requests.SHOWN_EXAMPLES:,} training examples; REPAIR gives hidden units the mean "
            "and deviation of their parents; RESCALE the deviation only."
        ),
    )


def keeps_statistics(config: str = "") -> bool:
    """Say whether models keep running statistics (BatchNorm), as far as is known.

    Args:
        config: Their architecture; that of the chosen pair unless given.

    Returns:
        Of models that this session uploaded, whether their files hold such statistics; of others,
        whether their symmetry says so, and False while it was not looked at.
    """
    wanted = config or session.subject().config
    if session.has_statistics(wanted):
        return True
    summary = jobs.read(requests.SymmetryRequest(wanted))
    return summary is not None and summary.keeps_statistics
