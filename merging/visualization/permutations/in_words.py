"""Every figure in words, with its numbers: for readers who hear a page instead of seeing it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from merging.schema.records.alignment import Alignment, GroupUnits, LayerRow
from merging.visualization.permutations.cycles import chance_cycles, expected_cycles
from merging.visualization.permutations.layers import QUANTITIES, Quantity, layer_values
from merging.visualization.permutations.permutation import WHOLE
from merging.visualization.theme import method_style
from merging.visualization.wording import counted, sentence_case


def describe_permutation(units: GroupUnits) -> str:
    """Say how many units moved, and how sure their matches are."""
    n = units.permutation.size
    known = units.margin[np.isfinite(units.margin)]
    middle = f"{np.median(known):.2f}" if known.size else "unknown"
    inside = f", {n // units.run:,} × {units.run:,}" if units.run < n else ""
    return (
        f"Permutation of the {counted(n, 'unit')} of {units.group}{inside}: "
        f"{n - units.fixed_points:,} moved, {units.fixed_points:,} stayed. Median margin of a "
        f"match over the next best unit {middle}."
    )


def describe_similarity(units: GroupUnits) -> str:
    """Say the mean similarity on the diagonal before and after, and what one cell stands for."""
    means = [float(np.diag(image).mean()) / WHOLE for image in (units.before, units.after)]
    cell = "one unit" if units.block == 1 else f"the largest of {units.block} × {units.block} units"
    return (
        f"Cosine similarity of A's units with B's in {units.group}, {len(units.before)} × "
        f"{len(units.before)} cells, each {cell}. Mean of the diagonal {means[0]:.2f} before and "
        f"{means[1]:.2f} after; mean similarity of the matched units "
        f"{float(np.nanmean(units.matched)):.2f}."
    )


def describe_cycles(units: GroupUnits) -> str:
    """Say the number of cycles and fixed points, beside those of a random permutation."""
    n = units.permutation.size
    found = (
        f"The permutation of {units.group} has {counted(len(units.cycles), 'cycle')}, the longest "
        f"of {counted(max(units.cycles, default=0), 'unit')}, and "
        f"{counted(units.fixed_points, 'fixed point')}. "
    )
    if units.run < n:
        return found + (
            f"A random one of {n // units.run:,} × {units.run:,} units has about "
            f"{chance_cycles(units):.1f} cycles and {counted(units.fixed_parents, 'fixed point')}."
        )
    return found + (
        f"A random permutation of {n:,} units has "
        f"about {expected_cycles(n):.1f} cycles, the longest of about {0.62433 * n:.0f} units, "
        "and 1 fixed point."
    )


def describe_margins(units: GroupUnits) -> str:
    """Say the spread of the margins, and how many are negative."""
    known = units.margin[np.isfinite(units.margin)]
    if known.size == 0:
        return f"No margins are known for the {counted(units.margin.size, 'unit')}."
    low, middle, high = np.percentile(known, [5, 50, 95])
    return (
        f"Margins of {counted(known.size, 'unit')} of {units.group} over the next best unit: "
        f"median {middle:.2f}, nine in ten between {low:.2f} and {high:.2f}. "
        f"{counted(int((known < 0).sum()), 'unit')} below 0: another unit of B is more similar."
    )


def describe_objectives(alignments: Sequence[Alignment]) -> str:
    """Say where every run's objective began and ended, and how the run ended."""
    if not alignments:
        return "No runs yet, 0 steps."
    return " ".join(_run_words(run) for run in alignments)


def _run_words(run: Alignment) -> str:
    title, values = method_style(run.method).title, run.objective
    if not values:
        return f"{title}: no value yet, 0 steps."
    ending = "converged" if run.converged else "stopped" if run.stopped else "not converged"
    steps = counted(len(values) - 1, "step")
    path = (
        f"from {values[0]:.5g} to {values[-1]:.5g} in {steps}"
        if len(values) > 1
        else f"{values[0]:.5g} at the start"
    )
    more = (
        f" {len(run.restarts)} restarts ended between {min(run.restarts):.5g} and "
        f"{max(run.restarts):.5g}."
        if len(run.restarts) > 1
        else ""
    )
    return f"{title}: {run.objective_name} {path}, {ending}.{more}"


def describe_layers(
    rows: Sequence[LayerRow], *, quantity: Quantity = "distance", method: str = "weight"
) -> str:
    """Say how a quantity of the layers changed, on average and where it changed most.

    Args:
        rows: The layers.
        quantity: What the bars show.
        method: What aligned the model.

    Returns:
        A few sentences.

    Raises:
        UnknownNameError: If `quantity` or `method` is none of its choices.
    """
    values, style = layer_values(rows, quantity), QUANTITIES[quantity]
    left = f" {counted(values.left_out, 'layer')} without this value left out."
    left = left if values.left_out else ""
    if not values.names:
        return f"No layer has a {style.words}.{left}"
    what = sentence_case(style.sentence_words(values.unit))
    most = int(np.argmax(np.abs(values.after - values.before)))
    return (
        f"{what} of {counted(len(values.names), 'layer')}: on average "
        f"{values.before.mean():.3g} before and {values.after.mean():.3g} after "
        f"{method_style(method).title.lower()}; the largest change is in {values.names[most]}, "
        f"from {values.before[most]:.3g} to {values.after[most]:.3g}.{left}"
    )
