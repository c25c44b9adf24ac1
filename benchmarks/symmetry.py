"""Finding and certifying the symmetries of every bundled architecture."""

from __future__ import annotations

from collections.abc import Iterator

import merging
from benchmarks.timing import seconds
from merging.models.registry import build_model, example_inputs
from merging.zoo import RECIPES


def measure() -> Iterator[str]:
    """Yield one line per bundled pair."""
    for name, recipe in RECIPES.items():
        model, inputs = build_model(recipe.config), example_inputs(recipe.config)
        found = []
        took = seconds(lambda m=model, x=inputs, f=found: f.append(merging.find_symmetry(m, x)))
        certificate = merging.certify(model, found[0], inputs, seed=1)
        yield (
            f"{name}: {certificate.groups} groups, {certificate.units} units, "
            f"{certificate.share_moved:.2%} of parameters, {took:.2f} s, "
            f"function kept to {certificate.max_relative_difference:.0e}"
        )
