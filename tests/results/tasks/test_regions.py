"""Tasks of paths, simplexes and samples end to end; truth from direct calls of the library."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import merging
from merging.landscape import connect, evaluate, evaluate_path, evaluate_simplex, off_line
from merging.models.architectures.registry import example_inputs
from merging.models.state_dict import distance
from merging.results import requests
from merging.results.compute.run_piece import Context
from merging.results.compute.store import Store
from merging.results.tasks import run_piece
from merging.results.tasks.load_pair import load
from merging.results.tasks.path import read_path
from merging.schema.errors import MergingError, StoppedError
from tests.results.tasks.test_tasks import computed

SUBJECT = requests.bundled_subject("digits-mlp-256")
WEIGHT = requests.alignment(SUBJECT, "weight", {"restarts": 1})
OPTIONS = {
    "bezier": {"steps": 20},
    "chain": {"steps": 20},
    "neb": {"steps": 3, "cycles": 2, "pivots": 2},
}
PATHS = {
    kind: requests.path(SUBJECT, WEIGHT if kind == "bezier" else None, kind, options, seed=3)
    for kind, options in OPTIONS.items()
}
BEZIER = PATHS["bezier"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = Store(tmp_path_factory.mktemp("store"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def pair():
    return merging.load_pair("digits-mlp-256")


def aligned_b(pair, store):
    spec = merging.find_symmetry(pair.model, example_inputs(pair.card["config"]))
    perms = computed(WEIGHT, store).permutations
    return merging.permute(spec, {k: torch.from_numpy(v) for k, v in perms.items()}, pair.params_b)


def direct(kind, pair, store):
    request = PATHS[kind]
    end = pair.params_b if request.alignment is None else aligned_b(pair, store)
    options = json.loads(request.options)
    return connect(pair.model, pair.params_a, end, pair.data.train, kind, options, request.seed)


@pytest.mark.parametrize("kind", PATHS)
def test_paths_are_those_of_the_library(kind, pair, store):
    found, expected = computed(PATHS[kind], store), direct(kind, pair, store)
    assert found.history == pytest.approx(expected.history, rel=1e-6)
    assert (found.kind, found.seed, found.stopped) == (kind, 3, False)
    assert found.bends == len(expected.corners) - 2
    assert dict(found.options) == json.loads(PATHS[kind].options)
    chord = distance(expected.corners[0], expected.corners[-1])
    assert found.length == pytest.approx(expected.length / chord, rel=1e-6)
    assert found.distance == pytest.approx(
        off_line(expected.corners[0], expected.corners[-1], expected.bend) / chord, rel=1e-5
    )
    kept = read_path(PATHS[kind], load(SUBJECT, store), store)
    for t in (0.0, 0.3, 1.0):
        assert distance(kept.at(t), expected.at(t)) <= 1e-5


@pytest.mark.parametrize("kind", PATHS)
def test_curves_along_paths_are_those_of_the_library(kind, pair, store):
    found = computed(requests.PathCurveRequest(SUBJECT, PATHS[kind]), store)
    expected = evaluate_path(pair.model, direct(kind, pair, store), pair.data.test)
    np.testing.assert_allclose(found.curve.lams, expected.lams)
    np.testing.assert_allclose(found.curve.loss, expected.loss, rtol=1e-4)
    np.testing.assert_allclose(found.curve.accuracy, expected.accuracy, atol=1e-9)
    assert found.path == computed(PATHS[kind], store)
    assert (found.curve.split, found.curve.statistics) == ("test", "interpolated")


class _Stopping(Context):
    """Whom somebody tells to stop at a report."""

    left = 3

    def report(self, done, total, note=""):
        self.left -= 1
        if self.left < 0:
            raise StoppedError("stopped as asked")


def test_a_stopped_path_keeps_what_it_reached_and_is_no_result(tmp_path):
    store = Store(tmp_path)
    request = requests.path(SUBJECT, None, "bezier", {"steps": 20})
    (piece,) = request.job().pieces
    context = _Stopping(store, piece.key)
    with pytest.raises(StoppedError, match="as asked"):
        run_piece(piece.payload, context)
    context.flush()
    assert request.read(store) is None
    part = request.read_partial(store)
    assert part is not None
    assert part.stopped
    assert len(part.history) == 4  # the report after the fourth step stops it
    store.close()


def test_a_plane_through_a_bend_holds_the_whole_path(pair, store):
    request = requests.SurfaceRequest(SUBJECT, ("a", WEIGHT, BEZIER), ("b",), level=0)
    surface = computed(request, store)
    assert [point.name for point in surface.points] == ["A", "weight", "bend", "B"]
    assert [round(point.residual, 3) == 0 for point in surface.points] == [True] * 3 + [False]
    (drawn,) = surface.paths
    path = direct("bezier", pair, store)
    assert drawn.kind == "bezier"
    assert (drawn.residual < 1e-3).all()
    length = np.hypot(np.diff(drawn.x), np.diff(drawn.y)).sum()
    assert length == pytest.approx(path.length, rel=1e-2)
    end = surface.points[1]
    assert (drawn.x[-1], drawn.y[-1]) == pytest.approx((end.x, end.y), abs=1e-4)


def test_a_path_off_the_plane_says_how_far(pair, store):
    request = requests.SurfaceRequest(SUBJECT, ("a", "b", WEIGHT), (PATHS["neb"],), level=0)
    (drawn,) = computed(request, store).paths
    expected = merging.plane_through(pair.params_a, pair.params_b, aligned_b(pair, store))
    middle = direct("neb", pair, store).at(0.5)
    assert (drawn.x[20], drawn.y[20]) == pytest.approx(expected.coordinates(middle), abs=1e-3)
    assert drawn.residual[20] == pytest.approx(expected.residual(middle), rel=1e-3)
    assert drawn.residual[0] == pytest.approx(0, abs=1e-3)


def test_simplexes_are_those_of_the_library(pair, store):
    request = requests.SimplexRequest(SUBJECT, ("a", WEIGHT, BEZIER), level=1)
    found = computed(request, store)
    corners = {
        "A": pair.params_a,
        "weight": aligned_b(pair, store),
        "bend": direct("bezier", pair, store).bend,
    }
    expected = evaluate_simplex(pair.model, corners, pair.data.test, 8)
    order, other = (np.lexsort(simplex.weights.T) for simplex in (found, expected))
    np.testing.assert_allclose(found.weights[order], expected.weights[other])
    np.testing.assert_allclose(found.loss[order], expected.loss[other], rtol=1e-4)
    assert found.names == tuple(corners)
    assert found.resolution == 8
    assert found.examples == len(pair.data.test)


def test_samples_lie_around_their_model_and_have_losses_of_their_own(pair, store):
    options = {"snapshots": 3, "every": 2, "samples": 4, "rank": 2}
    request = requests.swag(SUBJECT, ("a", "b", WEIGHT), ("a", WEIGHT), options, seed=5)
    around_a, around_b = computed(request, store)
    assert (around_a.around, around_b.around) == ("A", "weight")
    assert (around_a.snapshots, len(around_a.points)) == (3, 4)
    alone = evaluate(pair.model, pair.params_a, pair.data.test)
    assert around_a.loss == pytest.approx(alone.loss[0], abs=0.2)
    plane = merging.plane_through(pair.params_a, pair.params_b, aligned_b(pair, store))
    options = json.loads(request.options)
    swag = merging.collect_swag(pair.model, pair.params_a, pair.data.train, options, 5)
    sample = swag.sample(torch.Generator().manual_seed(5))
    first = around_a.points[0]
    assert (first.x, first.y) == pytest.approx(plane.coordinates(sample), abs=1e-3)
    assert first.residual == pytest.approx(plane.residual(sample), rel=1e-3)
    assert around_a.loss[0] == pytest.approx(
        evaluate(pair.model, sample, pair.data.test).loss[0], rel=1e-4
    )


def test_a_path_that_is_missing_is_named(store):
    other = requests.path(SUBJECT, None, "chain", {"steps": 7})
    (piece, *_) = requests.PathCurveRequest(SUBJECT, other).job().pieces
    with pytest.raises(MergingError, match=r"training a path .* is missing; run it again"):
        run_piece(piece.payload, Context(store, piece.key))
