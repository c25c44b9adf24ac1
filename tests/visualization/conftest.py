"""Records as the backend makes them, small and from a fixed seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from merging.schema.records.alignment import Alignment, GroupUnits, LayerRow
from merging.schema.records.curve import Curve
from merging.schema.records.simplex import SimplexLoss
from merging.schema.records.surface import PlanePoint, Surface


def _curve(barrier=0.6, *, split="test", points=25, low=0.0, high=1.0, examples=400, seed=0):
    rng = np.random.default_rng(seed)
    lams = np.linspace(low, high, points)
    hump = np.sin(np.pi * np.clip(lams, 0, 1)) ** 2
    noise = rng.gamma(2.0, 0.5, size=examples)
    losses = (0.08 * noise + barrier * hump[:, None] * noise[::-1]).astype(np.float32)
    correct = rng.random(examples) < (0.97 - 0.2 * barrier * hump)[:, None]
    means = losses.astype(np.float64).mean(axis=1), correct.mean(axis=1)
    return Curve(lams, *means, losses, correct, split=split)


def _surface(side=33, *, noise=0.0, aligned="weight", seed=0, residual=0.0, scale=20.0):
    rng = np.random.default_rng(seed)
    x, y = np.linspace(-0.35, 1.35, side), np.linspace(-0.4, 0.9, side)
    across, up = np.meshgrid(x, y)
    near = np.minimum(np.hypot(across, up), np.hypot(across - 1, up))
    loss = 0.06 + 2.2 * (1 - np.exp(-6 * near**2))
    loss = loss * np.exp(noise * rng.standard_normal(loss.shape))
    points = (
        PlanePoint("A", 0.0, 0.0),
        PlanePoint("B", scale, 0.0),
        PlanePoint(aligned, 0.5 * scale, 0.4 * scale, residual * scale),
    )
    accuracy, error, everywhere = np.exp(-loss), 0.02 * loss, np.ones(loss.shape, bool)
    return Surface(
        x * scale, y * scale, loss, accuracy, error, everywhere, points, scale, "test", 400
    )  # fmt: skip


def _cycles(permutation):
    left, lengths = set(range(permutation.size)), []
    while left:
        unit, length = min(left), 0
        while unit in left:
            left.remove(unit)
            unit, length = int(permutation[unit]), length + 1
        lengths.append(length)
    return tuple(sorted(lengths, reverse=True))


def _units(n=64, *, seed=0):
    rng = np.random.default_rng(seed)
    permutation = rng.permutation(n)
    similarity = np.clip(0.1 * rng.standard_normal((n, n)), -1, 1)
    own = np.arange(n)
    similarity[own, permutation] = rng.uniform(0.05, 0.9, n)
    others = similarity.copy()
    others[own, permutation] = -9
    matched = similarity[own, permutation]
    block = max(1, n // 256)
    side = slice(0, None, block)
    images = [
        np.round(127 * image[side, side]).astype(np.int8)
        for image in (similarity, similarity[:, permutation])
    ]
    return GroupUnits(
        "fc1", permutation, *images, block, matched, matched - others.max(axis=1),
        int((permutation == own).sum()), _cycles(permutation),
    )  # fmt: skip


def _simplex(side=8, names=("A", "B", "weight"), *, known=None):
    weights = simplex_grid(side, len(names))[:known]
    loss = 0.1 + 2 * weights[:, 0] * weights[:, 1] + weights[:, -1]
    return SimplexLoss(names, weights, loss, np.exp(-loss), 0.02 * loss, side, "test", 400)


def simplex_grid(side, corners):
    """All shares in steps of 1 / side, by counting."""
    steps = np.indices((side + 1,) * corners).reshape(corners, -1).T
    return steps[steps.sum(1) == side] / side


@pytest.fixture
def make_simplex():
    return _simplex


@pytest.fixture
def make_curve():
    return _curve


@pytest.fixture
def make_surface():
    return _surface


@pytest.fixture
def half_way(make_surface):
    """A 33 x 33 surface of which the 17 x 17 level and a few more rows are evaluated."""
    surface = make_surface(33)
    evaluated = np.zeros(surface.loss.shape, bool)
    evaluated[::2, ::2] = True
    evaluated[:5] = True
    return replace(surface, evaluated=evaluated, loss=np.where(evaluated, surface.loss, np.nan))


@pytest.fixture
def make_units():
    return _units


@pytest.fixture
def make_alignment():
    def build(method="weight", objective=(100.25, 410.5, 551.75), restarts=(), **ending):
        fates = {"converged": True, "stopped": False, "seconds": 1.0} | ending
        return Alignment(
            method, {"fc1": np.arange(4)[::-1]}, objective, "sum of inner products", **fates,
            restarts=restarts,
        )  # fmt: skip

    return build


@pytest.fixture
def rows():
    return [
        LayerRow("layer1.0.a_block_with_a_long_name.conv1.weight", 9.5, 5.25, 0.01, 0.63,
                 0.2, 0.01, 0.4, 0.95),
        LayerRow("fc1.weight", 12.0, 6.0, 0.02, 0.7, 0.3, 0.02, 0.2, 1.25),
        LayerRow("out.weight", 4.0, 3.0, 0.05, 0.4),
    ]  # fmt: skip
