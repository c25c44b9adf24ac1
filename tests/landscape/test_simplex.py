"""The simplex of three or more models."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from merging.landscape import SIMPLEX_LEVELS, evaluate, evaluate_simplex, new_simplex_points
from merging.landscape import simplex_points as points_of
from merging.models.state_dict import combine
from merging.schema.errors import ArchitectureMismatchError, MergingError
from tests.cases import architecture, perceptron, random_state, synthetic_batches


@pytest.mark.parametrize(("resolution", "corners"), [(1, 3), (4, 3), (5, 4), (2, 6)])
def test_points_are_all_shares_in_equal_steps_that_sum_to_one(resolution, corners):
    points = points_of(resolution, corners)
    assert len(points) == comb(resolution + corners - 1, corners - 1)
    assert len(np.unique(points, axis=0)) == len(points)
    assert points.sum(1) == pytest.approx(1)
    assert (points >= 0).all()
    np.testing.assert_allclose(points * resolution, np.rint(points * resolution))


@pytest.mark.parametrize("corners", [3, 4])
def test_every_level_keeps_the_points_of_the_one_before(corners):
    reached: set[tuple[float, ...]] = set()
    for level, side in enumerate(SIMPLEX_LEVELS[:3]):
        fresh = {tuple(row) for row in new_simplex_points(level, corners)}
        assert not fresh & reached
        reached |= fresh
        assert reached == {tuple(row) for row in points_of(side, corners)}


def test_corners_are_the_models_and_points_their_means():
    model, batches = architecture("cnn"), synthetic_batches("cnn")
    states = {name: random_state(model, k) for k, name in enumerate("abc")}
    found = evaluate_simplex(model, states, batches, 2)
    for name, params in states.items():
        assert found.corner(name) == evaluate(model, params, batches).loss[0]
    for row, loss, accuracy in zip(found.weights, found.loss, found.accuracy, strict=True):
        alone = evaluate(model, combine(list(states.values()), row.tolist()), batches)
        assert loss == pytest.approx(alone.loss[0], rel=1e-4)
        assert accuracy == alone.accuracy[0]
    assert found.loss[found.best] == found.loss.min()
    assert (found.resolution, found.examples) == (2, 24)


def test_a_face_of_four_models_is_the_simplex_of_three():
    model, batches = architecture("mlp"), synthetic_batches("mlp")
    states = {name: random_state(model, k) for k, name in enumerate("abcd")}
    whole = evaluate_simplex(model, states, batches, 3)
    face = whole.face(("a", "b", "d"))
    alone = evaluate_simplex(model, {n: states[n] for n in "abd"}, batches, 3)
    np.testing.assert_array_equal(face.weights, alone.weights)
    np.testing.assert_allclose(face.loss, alone.loss, rtol=1e-5)


def test_two_models_are_no_simplex():
    model, batches = perceptron(4, 3, 2), synthetic_batches("mlp")
    with pytest.raises(MergingError, match="at least three models, and got 2"):
        evaluate_simplex(model, {"a": random_state(model, 1), "b": random_state(model, 2)}, batches)
    states = {"a": random_state(model, 1), "b": random_state(model, 2), "c": {}}
    with pytest.raises(ArchitectureMismatchError, match="lacks"):
        evaluate_simplex(model, states, batches)
