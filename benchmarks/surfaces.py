"""A loss surface of pair 1: points per second against PyPI's loss-landscapes."""

from __future__ import annotations

from collections.abc import Iterator

import loss_landscapes
import loss_landscapes.metrics
import numpy as np
import torch
import torch.nn.functional as F

import merging
from benchmarks.timing import compare
from merging.models.architectures.registry import build_model
from merging.models.zoo.pairs import RECIPES

SIDE = 21


def measure() -> Iterator[str]:
    """Yield lines with the figures."""
    pair = merging.load_pair("mnist-mlp-512")
    spec = merging.find_symmetry(pair.model, (pair.data.test.inputs[:2],))
    perms = merging.random_permutations(spec, torch.Generator().manual_seed(0))
    third = merging.permute(spec, perms, pair.params_b)
    plane = merging.plane_through(pair.params_a, pair.params_b, third)
    x, y = pair.data.test.inputs, pair.data.test.targets
    models = []
    for params in (pair.params_a, pair.params_b, third):
        model = build_model(RECIPES[pair.name].config)
        model.load_state_dict(params)
        models.append(model)
    metric = loss_landscapes.metrics.Loss(F.cross_entropy, x, y)

    def ours() -> object:
        return merging.evaluate_plane(pair.model, plane, pair.data.test, resolution=SIDE)

    def theirs() -> object:
        with torch.no_grad():
            return loss_landscapes.planar_interpolation(
                models[0], models[1], models[2], metric, steps=SIDE, deepcopy_model=True
            )

    a, b, ratio = compare(ours, theirs, repetitions=3)
    yield (
        f"{SIDE} x {SIDE} points, {len(y)} images: {SIDE**2 / a:.0f} points/s, loss-landscapes "
        f"{SIDE**2 / b:.0f} points/s, ratio {ratio:.2f} (wanted: at least 1.5)"
    )
    surface = merging.evaluate_plane(pair.model, plane, pair.data.test, resolution=5, margin=0)
    with torch.no_grad():
        direct = F.cross_entropy(
            torch.func.functional_call(pair.model, plane.point(surface.x[1], surface.y[2]), x),
            y,
        )
    difference = abs(float(direct) - surface.loss[2, 1]) / float(direct)
    assert np.isfinite(difference)
    yield f"relative difference from a direct evaluation at one point: {difference:.1e}"
