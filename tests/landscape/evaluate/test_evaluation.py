"""Families of models, evaluated quickly and slowly."""

import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from merging.files.data.batches import Batches
from merging.landscape import evaluate, evaluate_family
from merging.landscape.evaluate import evaluation
from merging.landscape.evaluate.evaluation import Evaluation
from merging.landscape.evaluate.losses import score
from merging.models.graph.export import trace
from merging.schema.errors import DataError, StoppedError
from tests.cases import (
    CONFIGS,
    NETWORKS,
    Net,
    architecture,
    network,
    network_inputs,
    perceptron,
    random_state,
    synthetic_batches,
    weight,
)
from tests.oracles import evaluation as slow_evaluation
from tests.oracles import mix, outputs

every_architecture = pytest.mark.parametrize("name", CONFIGS)

# More points than corners, so that what is linear is computed once per corner; the first three
# are the corners themselves.
WEIGHTS = np.array([
    [1, 0, 0],
    [0, 1, 0],
    [0, 0, 1],
    [0.5, 0.5, 0],
    [0.2, -0.3, 1.1],
    [1, 0.4, 0.4],
    [0, 0, 0.5],
])


def family(name, seeds=(1, 2, 3)):
    model = architecture(name)
    return model, [random_state(model, seed, scale=0.3) for seed in seeds]


def assert_same(found, model, corners, weights, batches):
    losses, answers = slow_evaluation(model, [mix(corners, row) for row in weights], batches)
    np.testing.assert_allclose(found.losses, losses, rtol=2e-4, atol=2e-5)
    # An answer may differ only where two classes are as good as even.
    assert (found.correct == answers).mean() > 0.98
    np.testing.assert_allclose(found.loss, losses.mean(1), rtol=1e-4, atol=1e-5)


@every_architecture
def test_a_family_is_evaluated_like_one_model_after_the_other(name):
    model, corners = family(name)
    batches = synthetic_batches(name, 7, batch_size=3)
    found = evaluate_family(model, corners, WEIGHTS, batches)
    assert_same(found, model, corners, WEIGHTS, batches)
    assert found.losses.dtype == np.float32
    assert found.losses.shape == found.correct.shape == (7, 7)


@every_architecture
def test_a_family_is_evaluated_alike_without_anything_shared(name):
    model, corners = family(name)
    batches = synthetic_batches(name, 7, batch_size=3)
    found = evaluate_family(model, corners, WEIGHTS, batches, prepare=lambda params, _: params)
    assert_same(found, model, corners, WEIGHTS, batches)
    few_points = evaluate_family(model, corners, WEIGHTS[3:5], batches)
    np.testing.assert_allclose(few_points.losses, found.losses[3:5], rtol=1e-5, atol=1e-6)


@every_architecture
def test_corners_are_evaluated_bit_for_bit_as_by_themselves(name):
    model, corners = family(name)
    batches = synthetic_batches(name, 33, batch_size=20)
    found = evaluate_family(model, corners, WEIGHTS, batches)
    for k, corner in enumerate(corners):
        alone = evaluate(model, corner, batches)
        assert np.array_equal(found.losses[k], alone.losses[0])
        assert np.array_equal(found.correct[k], alone.correct[0])


@pytest.mark.parametrize("name", [n for n in NETWORKS if n != "stacked"])
def test_networks_that_share_more_than_a_first_layer_are_evaluated_alike(name):
    model = network(name)
    corners = [random_state(model, seed, scale=0.3) for seed in (1, 2)]
    (x,) = network_inputs(name, 5, seed=1)
    batches = Batches(x, torch.tensor([0, 1, 1, 0, 1]), 3)
    weights = WEIGHTS[[0, 1, 3, 4], :2]
    found = evaluate_family(model, corners, weights, batches)
    assert_same(found, model, corners, weights, batches)


class CountsWideProducts(TorchDispatchMode):
    """Counts the matrix products over 40 inputs of more than one example."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        shapes = [tuple(a.shape) for a in args if isinstance(a, torch.Tensor)]
        if "mm" in str(operator) and (9, 40) in shapes:
            self.count += 1
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize("points", [5, 9])
def test_a_wide_first_layer_is_computed_once_per_corner_and_not_once_per_point(points):
    model = perceptron(40, 6, 3)
    corners = [random_state(model, seed) for seed in (1, 2)]
    batches = Batches(torch.randn(9, 40), torch.arange(9) % 3)
    weights = np.stack([1 - np.linspace(0, 1, points), np.linspace(0, 1, points)], 1)
    evaluate(model, corners[0], batches)  # traced by now
    with CountsWideProducts() as counted:
        evaluate_family(model, corners, weights, batches)
    assert counted.count == 2
    with CountsWideProducts() as counted:
        evaluate_family(model, corners, weights, batches, prepare=lambda params, _: params)
    assert counted.count == points


def _halves(m, x):
    left, right = m.fc(x).chunk(2, dim=1)
    return m.head(torch.cat([torch.relu(left) + right, right], 1))


def _view(m, x):
    hidden = m.fc(x)
    return m.head(torch.relu(hidden.view(-1, 2, 3)).flatten(1) + hidden)


def _transposed(m, x):
    hidden = m.fc(x)
    return m.head(torch.relu(hidden.t()).t() * hidden)


def _selected(m, x):
    hidden = m.fc(x)
    return m.head(hidden + torch.relu(hidden[:, 0])[:, None] + torch.relu(hidden[:, 1:2]))


def _constant(m, x):
    wave = torch.sin(x)
    return m.head(torch.relu(m.fc(wave)) + m.fc(torch.relu(wave)) + m.fc(wave))


def _scaled(m, x):
    return m.head(torch.relu(m.scale) * m.fc(x) + m.scale)


# Values that are read again after a nonlinearity has taken them.
READ_AGAIN = {
    "the input": lambda m, x: m.head(m.fc(torch.relu(x)) + m.fc(x)),
    "the flattened input": lambda m, x: m.head(m.fc(torch.relu(x.flatten(1))) + m.fc(x)),
    "a value made of the input": _constant,
    "a parameter": _scaled,
    "a first layer": lambda m, x: m.head(torch.relu(m.fc(x)) + m.fc(x)),
    "a first layer, once computed": lambda m, x: (lambda h: m.head(torch.relu(h) + h))(m.fc(x)),
    "a later layer": lambda m, x: (lambda h: torch.relu(h) + h)(m.head(torch.relu(m.fc(x)))),
    "the base of a view": _view,
    "the base of halves": _halves,
    "the base of a transpose": _transposed,
    "the base of selections": _selected,
    "the output": lambda m, x: torch.relu(m.head(m.fc(x))) + m.head(m.fc(x)),
}


@pytest.mark.parametrize("value", READ_AGAIN)
def test_a_value_that_is_read_again_is_not_overwritten(value):
    model = Net(
        READ_AGAIN[value],
        fc=torch.nn.Linear(40, 6), head=torch.nn.Linear(6, 2), scale=weight(6),
    ).eval()  # fmt: skip
    corners = [random_state(model, seed, scale=0.2) for seed in (1, 2)]
    batches = Batches(torch.randn(7, 40), torch.arange(7) % 2, 4)
    inputs = batches.inputs.clone()
    kept = [{n: v.clone() for n, v in corner.items()} for corner in corners]
    weights = WEIGHTS[[0, 1, 3, 4, 0, 1, 3], :2]
    found = evaluate_family(model, corners, weights, batches)
    assert_same(found, model, corners, weights, batches)
    assert np.array_equal(found.losses[:3], found.losses[4:])
    assert np.array_equal(found.losses, evaluate_family(model, corners, weights, batches).losses)
    assert torch.equal(batches.inputs, inputs)
    for before, corner in zip(kept, corners, strict=True):
        assert all(torch.equal(before[n], corner[n]) for n in before)


@pytest.mark.parametrize("value", READ_AGAIN)
def test_running_the_graph_overwrites_nothing_either(value):
    model = Net(
        READ_AGAIN[value],
        fc=torch.nn.Linear(40, 6), head=torch.nn.Linear(6, 2), scale=weight(6),
    ).eval()  # fmt: skip
    params, x = random_state(model, 1), torch.randn(5, 40)
    kept, inputs = {n: v.clone() for n, v in params.items()}, x.clone()
    with torch.no_grad():
        graph = trace(model, (x,))
        first, second = graph.run(params, (x,)), graph.run(params, (x,))
    torch.testing.assert_close(first, outputs(model, params, x))
    assert torch.equal(first, second)
    assert torch.equal(x, inputs)
    assert all(torch.equal(params[n], kept[n]) for n in kept)


def test_a_network_may_read_its_input_twice_and_after_constant_steps():
    model = Net(
        lambda m, x: m.head(torch.relu(m.one(x.flatten(1) * 2) + m.two(torch.sin(x.flatten(1))))),
        one=torch.nn.Linear(36, 5), two=torch.nn.Linear(36, 5), head=torch.nn.Linear(5, 2),
    ).eval()  # fmt: skip
    corners = [random_state(model, seed, scale=0.2) for seed in (1, 2)]
    batches = Batches(torch.randn(7, 1, 6, 6), torch.arange(7) % 2, 4)
    weights = WEIGHTS[[0, 1, 3, 4], :2]
    assert_same(evaluate_family(model, corners, weights, batches), model, corners, weights, batches)


@pytest.mark.parametrize("chunk", [1 << 9, 1 << 12, 1 << 30])
def test_how_batches_are_cut_into_chunks_does_not_matter(monkeypatch, chunk):
    model, corners = family("cnn")
    batches = synthetic_batches("cnn", 70, batch_size=50)
    whole = evaluate_family(model, corners, WEIGHTS, batches)
    monkeypatch.setattr(evaluation, "_CHUNK_BYTES", chunk)
    cut = evaluate_family(model, corners, WEIGHTS, batches)
    np.testing.assert_allclose(cut.losses, whole.losses, rtol=1e-5, atol=1e-6)
    assert cut.losses.shape == (7, 70)


def test_the_order_of_examples_is_kept_and_empty_batches_are_left_out():
    model, corners = family("mlp")
    batches = synthetic_batches("mlp", 9, batch_size=4)
    nothing = (batches.inputs[:0], batches.targets[:0])
    found = evaluate(model, corners[0], [nothing, *batches, nothing])
    whole = evaluate(model, corners[0], [(batches.inputs, batches.targets)])
    np.testing.assert_allclose(found.losses, whole.losses, rtol=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_kept(bad):
    model, (a, b, _) = family("mlp")
    b = {**b, "layers.1.bias": torch.full_like(b["layers.1.bias"], bad)}
    batches = synthetic_batches("mlp", 6)
    weights = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    found = evaluate_family(model, [a, b], weights, batches)
    # A corner of weight 0 is left out, so it does no harm.
    assert np.array_equal(found.losses[0], evaluate(model, a, batches).losses[0])
    assert not np.isfinite(found.loss[1:]).any()
    assert np.isnan(found.standard_error[1:]).all()


def test_infinite_losses_stay_infinite():
    model = perceptron(2, 2)
    state = {"layers.0.weight": torch.zeros(2, 2), "layers.0.bias": torch.tensor([0.0, -math.inf])}
    batches = [(torch.zeros(2, 2), torch.tensor([0, 1]))]
    assert evaluate(model, state, batches).losses.tolist() == [[0.0, math.inf]]


def test_means_and_standard_errors_are_those_by_hand():
    found = Evaluation(
        np.array([[1.0, 2.0, 3.0, 6.0]], np.float32), np.array([[True, True, False, True]])
    )
    assert found.loss.tolist() == [3.0]
    assert found.accuracy.tolist() == [0.75]
    by_hand = math.sqrt((4 + 1 + 0 + 9) / 3) / 2
    assert found.standard_error[0] == pytest.approx(by_hand)


def test_cross_entropy_is_minus_the_log_of_the_right_class():
    logits = torch.tensor([[1.0, 2.0, 0.5], [0.0, 0.0, 3.0]])
    loss, right = score(logits, torch.tensor([1, 0]))
    expected = [-math.log(math.exp(2) / (math.e + math.exp(2) + math.exp(0.5))),
                -math.log(1 / (2 + math.exp(3)))]  # fmt: skip
    assert loss.tolist() == pytest.approx(expected)
    assert right.tolist() == [True, False]


def test_a_single_output_is_a_yes_from_zero_upwards():
    loss, right = score(torch.tensor([[0.0], [2.0], [-1.0]]), torch.tensor([1, 0, 0]))
    expected = [math.log(2), math.log(1 + math.exp(2)), math.log(1 + math.exp(-1))]
    assert loss.tolist() == pytest.approx(expected)
    assert right.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("logits", "targets", "message"),
    [
        (torch.zeros(2, 3, 4), torch.zeros(2), r"output has shape \[2, 3, 4\] for 2 examples"),
        (torch.zeros(3), torch.zeros(3), r"output has shape \[3\] for 3 examples"),
        (torch.zeros(2, 3), torch.zeros(3), r"output has shape \[2, 3\] for 3 examples"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), "labels run from 0 to 3, .* tells 3 classes"),
        (torch.zeros(2, 3), torch.tensor([-1, 1]), "labels run from -1 to 1"),
        (torch.zeros(2, 1), torch.tensor([0, 2]), "labels run from 0 to 2, .* tells 2 classes"),
    ],
)
def test_outputs_and_labels_that_do_not_fit_are_refused(logits, targets, message):
    with pytest.raises(DataError, match=message):
        score(logits, targets)


def test_no_examples_are_refused():
    model, corners = family("mlp")
    for batches in ([], Batches(torch.zeros(0, 6), torch.zeros(0, dtype=torch.int64))):
        with pytest.raises(DataError, match="no examples to evaluate on; give at least one batch"):
            evaluate(model, corners[0], batches)


def test_progress_counts_points_and_stopping_stops():
    model, corners = family("mlp")
    batches, seen = synthetic_batches("mlp", 5), []
    evaluate_family(
        model, corners, WEIGHTS, batches, on_progress=lambda *report: seen.append(report[:2])
    )
    assert seen == [(k, 7) for k in range(1, 8)]

    def stop(done, total, note):
        if done == 3:
            raise StoppedError("enough")
        assert done < 3

    with pytest.raises(StoppedError, match="enough"):
        evaluate_family(model, corners, WEIGHTS, batches, on_progress=stop)


def test_preparing_sees_every_point_and_decides_what_is_evaluated():
    model, corners = family("mlp")
    batches, seen = synthetic_batches("mlp", 5), []

    def always_the_second(params, point):
        seen.append(point)
        expected = mix(corners, point)
        assert all(torch.allclose(params[n], expected[n], atol=1e-6) for n in params)
        return corners[1]

    found = evaluate_family(model, corners, WEIGHTS, batches, prepare=always_the_second)
    assert np.array_equal(np.array(seen), WEIGHTS)
    alone = evaluate(model, corners[1], batches)
    assert all(np.array_equal(row, alone.losses[0]) for row in found.losses)


@every_architecture
def test_nothing_that_is_given_is_written_into(name):
    model, corners = family(name)
    batches = synthetic_batches(name, 5)
    before = [{n: v.clone() for n, v in c.items()} for c in (*corners, model.state_dict())]
    inputs = batches.inputs.clone()
    evaluate_family(model, corners, WEIGHTS, batches)
    for kept, now in zip(before, (*corners, model.state_dict()), strict=True):
        assert all(torch.equal(kept[n], now[n]) for n in kept)
    assert torch.equal(batches.inputs, inputs)
    assert not model.training


def test_layers_that_write_in_place_are_evaluated_afresh_at_every_point():
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(36, 5), torch.nn.ReLU(inplace=True),
        torch.nn.Linear(5, 2),
    ).eval()  # fmt: skip
    corners = [random_state(model, seed) for seed in (1, 2)]
    batches = Batches(torch.randn(7, 1, 6, 6), torch.arange(7) % 2, 4)
    weights = WEIGHTS[[0, 1, 3, 0, 1], :2]
    found = evaluate_family(model, corners, weights, batches)
    assert_same(found, model, corners, weights, batches)
    assert np.array_equal(found.losses[:2], found.losses[3:])


def test_a_model_whose_batch_cannot_vary_is_evaluated_whole():
    model = Net(lambda m, x: m.fc(x.view(3, 4)), fc=torch.nn.Linear(4, 2)).eval()
    batches = [(torch.randn(3, 4), torch.tensor([0, 1, 0]))]
    found = evaluate(model, random_state(model, 1), batches)
    assert found.losses.shape == (1, 3)
