import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from merging.landscape import (
    LEVELS,
    evaluate,
    evaluate_plane,
    evaluate_points,
    filter_normalized_plane,
    grid_axes,
    new_points,
    plane_through,
    strip_axes,
)
from merging.models.state_dict import distance, dot, lerp
from merging.schema.errors import ArchitectureMismatchError, MergingError, StoppedError
from tests.cases import (
    CONFIGS,
    architecture,
    few,
    perceptron,
    random_state,
    synthetic_batches,
)
from tests.oracles import evaluation, flat, in_float64

every_architecture = pytest.mark.parametrize("name", CONFIGS)


def three(name, scale=0.3):
    model = architecture(name)
    return model, [random_state(model, seed, scale=scale) for seed in (1, 2, 3)]


@every_architecture
def test_the_basis_is_orthonormal_and_reaches_all_three_models(name):
    _, (a, b, c) = three(name)
    plane = plane_through(a, b, c)
    gram = [[dot(p, q) for q in plane.basis] for p in plane.basis]
    np.testing.assert_allclose(gram, np.eye(2), atol=1e-5)
    assert plane.orthonormal
    for params, corner in zip((a, b, c), plane.corners, strict=True):
        np.testing.assert_allclose(flat(plane.point(*corner)), flat(params), atol=2e-5)
        np.testing.assert_allclose(plane.coordinates(params), corner, atol=1e-4)
        assert plane.residual(params) < 1e-4
    assert plane.corners[0] == (0.0, 0.0)
    assert plane.corners[1] == (pytest.approx(distance(a, b)), 0.0)
    assert plane.corners[2][1] > 0


def test_coordinates_are_distances():
    _, (a, b, c) = three("cnn")
    plane = plane_through(a, b, c)
    corners = np.array(plane.corners)
    for i, p in enumerate((a, b, c)):
        for j, q in enumerate((a, b, c)):
            by_plane = float(np.linalg.norm(corners[i] - corners[j]))
            assert by_plane == pytest.approx(distance(p, q), rel=1e-5, abs=1e-5)


@few
@given(st.floats(-20, 20), st.floats(-20, 20))
def test_a_point_and_its_coordinates_are_inverse(x, y):
    plane = plane_through(*(in_float64(params) for params in three("mlp")[1]))
    assert plane.coordinates(plane.point(x, y)) == pytest.approx((x, y), abs=1e-8)
    assert plane.residual(plane.point(x, y)) < 1e-7


def test_the_residual_is_that_of_least_squares():
    model, states = three("mlp")
    plane = plane_through(*(in_float64(params) for params in states))
    other = in_float64(random_state(model, 9))
    basis = np.stack([flat(direction) for direction in plane.basis], 1)
    step = flat(other) - flat(plane.origin)
    solution, squares, *_ = np.linalg.lstsq(basis, step, rcond=None)
    assert plane.coordinates(other) == pytest.approx(tuple(solution))
    assert plane.residual(other) == pytest.approx(math.sqrt(squares[0]))


def test_the_nearest_point_on_a_slanted_basis_is_that_of_least_squares():
    model = architecture("cnn")
    a, other = (in_float64(random_state(model, seed)) for seed in (1, 2))
    plane = filter_normalized_plane(a, torch.Generator().manual_seed(0))
    assert abs(dot(*plane.basis)) > 0
    basis = np.stack([flat(direction) for direction in plane.basis], 1)
    solution, squares, *_ = np.linalg.lstsq(basis, flat(other) - flat(a), rcond=None)
    assert plane.coordinates(other) == pytest.approx(tuple(solution))
    assert plane.residual(other) == pytest.approx(math.sqrt(squares[0]))


def test_the_origin_is_model_a_bit_for_bit():
    _, (a, b, c) = three("resnet-batch")
    origin = plane_through(a, b, c).point(0, 0)
    assert all(torch.equal(origin[name], a[name]) for name in a)


def test_models_on_one_line_or_equal_span_no_plane():
    _, (a, b, _) = three("mlp")
    for third in (a, b, lerp(a, b, 0.3), lerp(a, b, -2.0)):
        with pytest.raises(MergingError, match="lie on one line"):
            plane_through(a, b, third)
    with pytest.raises(MergingError, match="first two models of the plane are equal"):
        plane_through(a, a, b)
    other = random_state(perceptron(6, 9, 3), 1)
    with pytest.raises(ArchitectureMismatchError, match="layers"):
        plane_through(a, b, other)


@every_architecture
def test_every_filter_of_a_direction_is_as_long_as_the_model_s(name):
    _, (a, _, _) = three(name)
    plane = filter_normalized_plane(a, torch.Generator().manual_seed(0))
    assert not plane.orthonormal
    for direction in plane.basis:
        assert direction.keys() == a.keys()
        for key, value in a.items():
            if value.dim() < 2 or not value.is_floating_point():
                assert not direction[key].any(), key
                continue
            for own, drawn in zip(value, direction[key], strict=True):
                assert float(drawn.norm()) == pytest.approx(float(own.norm()), rel=1e-4)
    assert not torch.equal(*(d[next(iter(a))] for d in plane.basis))


def test_directions_come_from_the_generator_alone():
    _, (a, _, _) = three("mlp")
    one = filter_normalized_plane(a, torch.Generator().manual_seed(4))
    torch.manual_seed(99)
    two = filter_normalized_plane(a, torch.Generator().manual_seed(4))
    assert np.array_equal(flat(one.basis[0]), flat(two.basis[0]))


def test_a_filter_of_zeros_stays_where_it_is():
    _, (a, _, _) = three("mlp")
    a["layers.0.weight"][2] = 0
    plane = filter_normalized_plane(a, torch.Generator().manual_seed(4))
    assert not plane.basis[0]["layers.0.weight"][2].any()


def test_the_grid_is_square_even_and_holds_all_models_with_a_margin():
    _, (a, b, c) = three("mlp")
    plane = plane_through(a, b, c)
    x, y = grid_axes(plane, 9, 0.25)
    corners = np.array(plane.corners)
    extent = (corners.max(0) - corners.min(0)).max()
    for axis, column in ((x, 0), (y, 1)):
        np.testing.assert_allclose(np.diff(axis), 1.5 * extent / 8)
        assert axis[0] <= corners[:, column].min() - 0.25 * extent + 1e-9
        assert axis[-1] >= corners[:, column].max() + 0.25 * extent - 1e-9
    around = filter_normalized_plane(a, torch.Generator())
    assert grid_axes(around, 5)[0].tolist() == [-1, -0.5, 0, 0.5, 1]


def test_every_level_holds_the_points_of_the_level_before():
    _, (a, b, c) = three("mlp")
    plane = plane_through(a, b, c)
    assert LEVELS == (9, 17, 33, 65)
    for coarse, fine in itertools.pairwise(LEVELS):
        for before, now in zip(grid_axes(plane, coarse), grid_axes(plane, fine), strict=True):
            np.testing.assert_allclose(now[::2], before, rtol=1e-13)


def test_new_points_are_those_that_no_coarser_grid_has():
    seen = set()
    for level, n in enumerate(LEVELS):
        stride = (LEVELS[-1] - 1) // (n - 1)
        fresh = new_points(level)
        assert fresh.shape == (n, n)
        points = {
            (int(r) * stride, int(c) * stride) for r, c in zip(*np.nonzero(fresh), strict=True)
        }
        assert not points & seen
        seen |= points
        assert len(seen) == n * n


@every_architecture
def test_a_surface_is_the_evaluation_of_every_point(name):
    model, (a, b, c) = three(name)
    plane = plane_through(a, b, c)
    batches = synthetic_batches(name, 5, batch_size=3)
    surface = evaluate_plane(model, plane, batches, resolution=3, margin=0.1)
    points = [plane.point(x, y) for y in surface.y for x in surface.x]
    losses, answers = evaluation(model, points, batches)
    np.testing.assert_allclose(surface.loss, losses.mean(1).reshape(3, 3), rtol=2e-3, atol=1e-4)
    np.testing.assert_allclose(surface.accuracy, answers.mean(1).reshape(3, 3), atol=0.21)
    errors = losses.std(1, ddof=1) / math.sqrt(5)
    np.testing.assert_allclose(surface.standard_error, errors.reshape(3, 3), rtol=1e-2, atol=1e-4)
    assert surface.complete
    assert surface.scale == pytest.approx(distance(a, b))
    assert [(p.name, p.x, p.y) for p in surface.points] == [
        (label, *corner) for label, corner in zip("ABC", plane.corners, strict=True)
    ]


def test_rows_are_y_and_columns_are_x():
    model, (a, b, c) = three("mlp")
    plane = plane_through(a, b, c)
    batches = synthetic_batches("mlp", 6)
    surface = evaluate_plane(model, plane, batches, resolution=4, margin=0.2)
    spot = evaluate_points(model, plane, [(surface.x[3], surface.y[1])], batches)
    assert surface.loss[1, 3] == pytest.approx(spot[0, 0], rel=1e-5)


def test_the_models_of_a_plane_are_evaluated_as_themselves():
    model, (a, b, c) = three("mlp")
    plane = plane_through(a, b, c)
    batches = synthetic_batches("mlp", 9)
    values = evaluate_points(model, plane, plane.corners, batches)
    assert values.shape == (3, 3)
    alone = [evaluate(model, params, batches) for params in (a, b, c)]
    assert values[0, 0] == alone[0].loss[0]
    np.testing.assert_allclose(values[0], [e.loss[0] for e in alone], rtol=1e-4)
    np.testing.assert_allclose(values[2], [e.standard_error[0] for e in alone], rtol=1e-3)


def test_points_can_be_evaluated_piece_by_piece():
    model, (a, b, c) = three("cnn")
    plane = plane_through(a, b, c)
    batches = synthetic_batches("cnn", 9)
    x, y = grid_axes(plane, 3)
    grid = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    whole = evaluate_points(model, plane, grid, batches)
    pieces = [evaluate_points(model, plane, part, batches) for part in (grid[:4], grid[4:])]
    np.testing.assert_allclose(np.concatenate(pieces, 1), whole, rtol=1e-5)


def test_a_surface_around_one_model_is_in_multiples_of_its_directions():
    model, (a, _, _) = three("mlp")
    batches = synthetic_batches("mlp", 9)
    plane = filter_normalized_plane(a, torch.Generator().manual_seed(0))
    surface = evaluate_plane(model, plane, batches, resolution=3)
    assert surface.scale == 1.0
    assert surface.loss[1, 1] == evaluate(model, a, batches).loss[0]
    assert [p.name for p in surface.points] == ["A"]


def test_points_that_are_not_finite_are_kept_and_counted():
    model, (a, b, c) = three("mlp")
    plane = plane_through(a, b, c)
    huge = {n: v * 1e30 for n, v in plane.basis[1].items()}
    tilted = type(plane)(plane.origin, (plane.basis[0], huge), plane.corners)
    surface = evaluate_plane(model, tilted, synthetic_batches("mlp", 4), resolution=3)
    assert surface.non_finite > 0
    assert surface.complete


def test_progress_and_stopping_reach_the_caller():
    model, (a, b, c) = three("mlp")
    plane, seen = plane_through(a, b, c), []

    def watch(done, total, note):
        seen.append((done, total))
        if done == 4:
            raise StoppedError("enough")

    with pytest.raises(StoppedError, match="enough"):
        evaluate_plane(model, plane, synthetic_batches("mlp", 4), 3, on_progress=watch)
    assert seen == [(k, 9) for k in range(1, 5)]


@pytest.mark.parametrize("height", [0.01, 0.5])
def test_a_strip_holds_its_models_and_is_as_high_as_the_third_asks_for(height):
    corners = ({"w": torch.tensor(row)} for row in ([0.0, 0], [2.0, 0], [1.0, height]))
    x, y = strip_axes(plane_through(*corners), 9, margin=0.1)
    assert (x[0], x[-1]) == pytest.approx((-0.2, 2.2))
    assert y[0] < 0 < height < y[-1]
    assert (y[0] + y[-1]) / 2 == pytest.approx(height / 2)
    assert np.ptp(y) == pytest.approx(max(3 * height, 0.3 * 2))
