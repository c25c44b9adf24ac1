import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from merging.landscape import curve_of, evaluate, evaluate_family, interpolate, line_positions
from merging.models.state_dict import lerp
from merging.schema.errors import ArchitectureMismatchError
from tests.cases import CONFIGS, architecture, few, perceptron, random_state, synthetic_batches
from tests.oracles import evaluation


@few
@given(st.integers(2, 60), st.floats(0, 1))
def test_positions_are_even_and_hold_both_ends_exactly(lams, overshoot):
    positions = line_positions(lams, overshoot)
    assert 0.0 in positions
    assert 1.0 in positions
    np.testing.assert_allclose(np.diff(positions), 1 / (lams - 1))
    assert positions[0] == pytest.approx(-overshoot, abs=0.5 / (lams - 1) + 1e-12)
    assert positions[0] + positions[-1] == pytest.approx(1)


def test_positions_may_be_given():
    assert line_positions([0, 0.1, 1]).tolist() == [0, 0.1, 1]
    assert line_positions().tolist() == [k / 24 for k in range(25)]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_curve_is_the_evaluation_of_every_point_between(name):
    model = architecture(name)
    a, b = random_state(model, 1, scale=0.3), random_state(model, 2, scale=0.3)
    batches = synthetic_batches(name, 6, batch_size=4)
    curve = interpolate(model, a, b, batches, 5, overshoot=0.25, split="test")
    assert curve.lams.tolist() == [-0.25, 0, 0.25, 0.5, 0.75, 1, 1.25]
    losses, _ = evaluation(model, [lerp(a, b, lam) for lam in curve.lams], batches)
    np.testing.assert_allclose(curve.example_losses, losses, rtol=5e-4, atol=2e-5)
    np.testing.assert_allclose(curve.loss, losses.mean(1), rtol=1e-4)
    np.testing.assert_array_equal(curve.accuracy, curve.example_correct.mean(1))
    assert (curve.split, curve.statistics, curve.examples) == ("test", "interpolated", 6)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_ends_of_a_curve_are_the_models_bit_for_bit(name):
    model = architecture(name)
    a, b = random_state(model, 1), random_state(model, 2)
    batches = synthetic_batches(name, 21, batch_size=16)
    curve = interpolate(model, a, b, batches, 7)
    for k, params in ((0, a), (-1, b)):
        assert np.array_equal(curve.example_losses[k], evaluate(model, params, batches).losses[0])


def test_a_curve_is_made_of_an_evaluation_piece_by_piece():
    model = architecture("mlp")
    a, b = random_state(model, 1), random_state(model, 2)
    batches = synthetic_batches("mlp", 9)
    lams = line_positions(5)
    found = evaluate_family(model, [a, b], np.stack([1 - lams, lams], 1), batches)
    curve, whole = curve_of(lams, found, split="x"), interpolate(model, a, b, batches, 5, split="x")
    assert np.array_equal(curve.example_losses, whole.example_losses)
    assert curve.barrier() == whole.barrier()


def test_what_prepares_the_points_is_said_in_the_curve():
    model = architecture("mlp")
    a, b = random_state(model, 1), random_state(model, 2)
    batches = synthetic_batches("mlp", 9)
    curve = interpolate(
        model, a, b, batches, 3, prepare=lambda params, point: a, statistics="always A"
    )
    assert curve.statistics == "always A"
    assert len(set(curve.loss.tolist())) == 1


def test_models_of_other_widths_are_refused_and_the_layer_named():
    model = perceptron(6, 5, 3)
    with pytest.raises(ArchitectureMismatchError, match=r"'layers\.0\.weight'"):
        interpolate(
            model, random_state(model, 1), random_state(perceptron(6, 4, 3), 1),
            synthetic_batches("mlp", 5),
        )  # fmt: skip


def test_progress_counts_positions():
    model = architecture("mlp")
    a, seen = random_state(model, 1), []
    interpolate(
        model, a, a, synthetic_batches("mlp", 5), 4,
        on_progress=lambda *report: seen.append(report[:2]),
    )  # fmt: skip
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_model_and_itself_have_no_barrier():
    model = architecture("cnn")
    a = random_state(model, 1)
    curve = interpolate(model, a, a, synthetic_batches("cnn", 9), 5)
    assert curve.barrier() == pytest.approx(0, abs=1e-5)
    assert torch.tensor(curve.example_losses).std(0).max() < 1e-4


def test_a_single_position_is_model_a():
    assert line_positions(1).tolist() == [0.0]
