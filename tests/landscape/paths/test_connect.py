"""Trained paths: on planted minima with a barrier between them, and on every architecture."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import merging
from merging.files.data.batches import Batches
from merging.landscape import connect, evaluate, evaluate_path, reset
from merging.landscape.paths.autoneb import across, inserted, respaced
from merging.landscape.paths.path import bezier_weights, polyline_weights
from merging.landscape.paths.trained_space import TrainedSpace
from merging.models.state_dict import distance, lerp
from merging.schema.cards.paths import PATH_CARDS, find_path_card
from merging.schema.errors import MergingError, StoppedError, UnknownNameError
from tests.cases import (
    CONFIGS,
    Net,
    architecture,
    network,
    network_inputs,
    perceptron,
    random_state,
    synthetic_batches,
)

KINDS = list(PATH_CARDS)
QUICK = {
    "bezier": {"steps": 6, "lr": 0.01},
    "chain": {"steps": 6, "lr": 0.01},
    "neb": {"steps": 3, "cycles": 2, "pivots": 2, "lr": 0.01},
}


@pytest.fixture(scope="module")
def ring():
    """A network whose minima are the circle |w| = 1: lines between them have a barrier."""
    return Net(lambda m, x: x * m.w.square().sum(), w=torch.nn.Parameter(torch.ones(2)))


ONES = Batches(torch.ones(8, 1), torch.ones(8), batch_size=8)
TURN = np.deg2rad(150)
END_A = {"w": torch.tensor([1.0, 0.0])}
END_B = {"w": torch.tensor([np.cos(TURN), np.sin(TURN)]).float()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_trained_path_goes_around_a_planted_barrier(kind, ring):
    line = merging.interpolate(ring, END_A, END_B, ONES)
    assert line.barrier() > 0.8  # the chord passes the middle at a distance of cos 75 degrees
    steps = {"cycles": 2} if kind == "neb" else {"steps": 150}
    path = connect(ring, END_A, END_B, ONES, kind, steps)
    assert evaluate_path(ring, path, ONES, 61).barrier() < 0.15 * line.barrier()
    assert path.length > 1.1 * distance(END_A, END_B)


@pytest.mark.parametrize("kind", KINDS)
def test_a_path_ends_at_the_models_bit_for_bit(kind):
    model, batches = architecture("mlp"), synthetic_batches("mlp")
    a, b = random_state(model, 1), random_state(model, 2)
    path = connect(model, a, b, batches, kind, QUICK[kind])
    for t, params in ((0.0, a), (1.0, b)):
        found = path.at(t)
        assert all(torch.equal(found[name], params[name]) for name in params)
    curve = evaluate_path(model, path, batches, 5)
    for k, params in ((0, a), (-1, b)):
        assert np.array_equal(curve.example_losses[k], evaluate(model, params, batches).losses[0])


@pytest.mark.parametrize("kind", KINDS)
def test_every_point_of_a_path_is_what_its_weights_say(kind):
    model, batches = architecture("cnn"), synthetic_batches("cnn")
    a, b = random_state(model, 1), random_state(model, 2)
    path = connect(model, a, b, batches, kind, QUICK[kind])
    curve = evaluate_path(model, path, batches, 4)
    for t, loss in zip(curve.lams, curve.loss, strict=True):
        assert loss == pytest.approx(evaluate(model, path.at(t), batches).loss[0], rel=1e-4)
    assert path.weights([0.2, 0.9]).sum(1) == pytest.approx(1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_one_path_and_inputs_stay_as_they_were(kind):
    model, batches = architecture("mlp"), synthetic_batches("mlp")
    a, b = random_state(model, 1), random_state(model, 2)
    kept = [{k: v.clone() for k, v in params.items()} for params in (a, b)]
    one, two = (connect(model, a, b, batches, kind, QUICK[kind], seed=3) for _ in range(2))
    other = connect(model, a, b, batches, kind, QUICK[kind], seed=4)
    assert one.history == two.history
    assert distance(one.bend, two.bend) == 0 < distance(one.bend, other.bend)
    for params, before in zip((a, b), kept, strict=True):
        assert all(torch.equal(params[name], before[name]) for name in before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_training_hands_over_the_path_so_far(kind):
    model, batches = architecture("mlp"), synthetic_batches("mlp")
    a, b = random_state(model, 1), random_state(model, 2)
    seen = []

    def stop(done, total, note):
        seen.append((done, total, note))
        if done == 2:
            raise StoppedError("stopped as asked")

    path = connect(model, a, b, batches, kind, QUICK[kind], on_progress=stop)
    assert path.stopped
    assert not path.converged
    assert [done for done, _, _ in seen] == [1, 2]
    assert seen[0][1] == 6
    assert "step 1" in seen[0][2]
    assert torch.equal(path.corners[0]["layers.0.weight"], a["layers.0.weight"])


@pytest.mark.parametrize("kind", KINDS)
def test_partial_paths_are_handed_over_with_options_and_seed(kind):
    model, batches = architecture("mlp"), synthetic_batches("mlp")
    a, b = random_state(model, 1), random_state(model, 2)
    parts = []
    connect(model, a, b, batches, kind, QUICK[kind], seed=5, on_partial=parts.append)
    assert parts
    for part in parts:
        assert part.stopped
        assert part.seed == 5
        assert part.options["lr"] == 0.01
        assert part.history


@pytest.mark.parametrize("name", CONFIGS)
def test_paths_run_on_every_architecture(name):
    model, batches = architecture(name), synthetic_batches(name)
    a, b = (random_state(model, k, scale=0.1) for k in (1, 2))
    for kind in ("bezier", "neb"):
        path = connect(model, a, b, batches, kind, QUICK[kind] | {"lr": 1e-4})
        assert np.isfinite(path.history).all()
        assert path.bend.keys() == a.keys()


def test_the_bend_of_a_model_with_batch_norm_has_statistics_of_its_own():
    name = next(n for n, config in CONFIGS.items() if config.get("norm") == "batch")
    model, batches = architecture(name), synthetic_batches(name)
    a, b = (random_state(model, k, scale=0.1) for k in (1, 2))
    path = connect(model, a, b, batches, "chain", QUICK["chain"])
    again = reset(model, path.bend, batches)
    mixed = lerp(a, b, 0.5)
    statistics = [key for key in a if key.endswith(("running_mean", "running_var"))]
    assert statistics
    for key in statistics:
        torch.testing.assert_close(path.bend[key], again[key])
        assert not torch.allclose(path.bend[key], mixed[key])


def test_tied_tensors_stay_tied():
    model = network("tied embeddings")
    (x,) = network_inputs("tied embeddings", 12)
    with torch.no_grad():
        classes = model(x).shape[-1]
    batches = Batches(x, torch.arange(12) % classes)
    a, b = random_state(model, 1), random_state(model, 2)
    bend = connect(model, a, b, batches, "bezier", QUICK["bezier"]).bend
    names = [k for k in a for other in a if k != other and torch.equal(a[k], a[other])]
    assert names
    assert all(torch.equal(bend[names[0]], bend[other]) for other in names[1:])


def test_the_gradient_is_that_of_the_mean_loss():
    model, batches = architecture("mlp"), synthetic_batches("mlp")
    params = random_state(model, 1)
    space = TrainedSpace(model, params, batches)
    point = space.vector(params)
    loss, slope = space.gradient(point, params, torch.arange(24), weight_decay=0.5)
    assert loss == pytest.approx(evaluate(model, params, batches).loss[0], rel=1e-5)
    step = torch.randn(point.shape, generator=torch.Generator().manual_seed(0))
    ends = [
        float(evaluate(model, space.params(point + h * step, params), batches).loss[0])
        + 0.25 * float((point + h * step).double().square().sum())
        for h in (-1e-3, 1e-3)
    ]
    assert float(slope @ step) == pytest.approx((ends[1] - ends[0]) / 2e-3, rel=2e-2)


def test_pivots_end_at_their_shares_of_the_length(ring):
    path = connect(ring, END_A, END_B, ONES, "neb", {"pivots": 4, "cycles": 1})
    steps = [distance(p, q) for p, q in zip(path.corners, path.corners[1:], strict=False)]
    assert max(steps) < 1.05 * min(steps)
    assert path.knots == pytest.approx(np.cumsum([0, *steps]) / sum(steps), abs=1e-6)


def test_pivots_are_put_in_where_the_band_is_high(ring):
    path = connect(ring, END_A, END_B, ONES, "neb", {"pivots": 1, "cycles": 3})
    assert len(path.corners) > 3


def test_respacing_moves_pivots_along_the_band_only():
    band = torch.tensor([[0.0, 0.0], [3.0, 0.0], [4.0, 0.0], [4.0, 4.0]])
    moved = respaced(band, np.array([0, 0.25, 0.75, 1]))
    torch.testing.assert_close(moved, torch.tensor([[0.0, 0], [2, 0], [4, 2], [4, 4]]))


def test_inserted_pivots_change_no_band():
    band = torch.tensor([[0.0, 0.0], [2.0, 0.0], [2.0, 2.0]])
    finer, knots = inserted(band, np.array([0, 0.5, 1]), [0.75])
    assert knots.tolist() == [0, 0.5, 0.75, 1]
    torch.testing.assert_close(finer, torch.tensor([[0.0, 0], [2, 0], [2, 1], [2, 2]]))


def test_what_is_left_of_a_gradient_is_across_the_band():
    band = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    slope = torch.tensor([[3.0, 5.0]])
    up = across(slope, band, [0.0, 1.0, 2.0])  # the next pivot is higher: the tangent is (0, 1)
    down = across(slope, band, [2.0, 1.0, 0.0])
    assert up.tolist() == [[3, 0]]
    assert down.tolist() == [[0, 5]]


def test_weights_of_a_chain_are_those_of_its_formula():
    t = np.linspace(0, 1, 9)
    first = t <= 0.5
    a, bend = np.where(first, 1 - 2 * t, 0), np.where(first, 2 * t, 2 - 2 * t)
    np.testing.assert_allclose(
        polyline_weights(t, (0, 0.5, 1)), np.stack([a, bend, 1 - a - bend], 1)
    )
    assert bezier_weights(t).sum(1) == pytest.approx(1)


def test_what_callers_can_do_wrong_is_said():
    model, batches = perceptron(4, 3, 2), synthetic_batches("mlp")
    a, b = random_state(model, 1), random_state(model, 2)
    with pytest.raises(UnknownNameError, match=r"unknown kind of path 'straight'.*bezier"):
        find_path_card("straight")
    with pytest.raises(MergingError, match="are equal, so there is no path"):
        connect(model, a, a, batches)
    with pytest.raises(MergingError, match="needs examples, and none were given"):
        connect(model, a, b, [])
    with pytest.raises(UnknownNameError, match="Bézier has no option 'pace'"):
        connect(model, a, b, batches, options={"pace": 1})


def test_a_run_that_runs_away_says_so(ring):
    with pytest.raises(MergingError, match="choose a smaller step size"):
        connect(ring, END_A, END_B, ONES, options={"lr": 10.0})
