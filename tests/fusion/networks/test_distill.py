"""Distillation: it comes nearer to the ensemble, by the formula, the same each time."""

import pytest
import torch

from merging.files.data.batches import Batches
from merging.fusion.networks.distill import distill
from merging.landscape.evaluate.evaluation import evaluate
from merging.matching import match
from merging.models.state_dict import lerp
from merging.models.zoo.pairs import load_pair
from merging.schema.errors import ArchitectureMismatchError, DataError, MergingError, StoppedError
from merging.symmetry import find_symmetry
from merging.symmetry.permutation import permute
from tests.cases import (
    architecture,
    network,
    network_inputs,
    perceptron,
    random_state,
    synthetic_batches,
)
from tests.oracles import outputs


@pytest.fixture(scope="module")
def midpoint():
    pair = load_pair("digits-mlp-256")
    spec = find_symmetry(pair.model, (pair.data.test.inputs[:2],))
    found = match("weight", pair.model, pair.params_a, pair.params_b, spec=spec)
    aligned = permute(spec, found.permutations, pair.params_b)
    return pair, lerp(pair.params_a, aligned, 0.5)


def _ensemble(pair):
    x = pair.data.test.inputs
    teachers = (pair.params_a, pair.params_b)
    return sum(outputs(pair.model, params, x).softmax(1) for params in teachers) / 2


def _divergence(pair, params):
    p, q = _ensemble(pair), outputs(pair.model, params, pair.data.test.inputs).log_softmax(1)
    return float((p * (p.log() - q)).sum(1).mean())


def test_the_midpoint_comes_nearer_to_the_ensemble_on_examples_it_never_saw(midpoint):
    pair, start = midpoint
    found = distill(pair.model, start, [pair.params_a, pair.params_b], pair.data.train)
    assert found.loss[-1] < 0.2 * found.loss[0]
    assert _divergence(pair, found.params) < 0.5 * _divergence(pair, start)
    answers = _ensemble(pair).argmax(1)
    agreement = [
        float((outputs(pair.model, p, pair.data.test.inputs).argmax(1) == answers).double().mean())
        for p in (start, found.params)
    ]
    assert agreement[1] >= agreement[0]
    assert agreement[1] > 0.98


def test_the_loss_is_the_formula(generator):
    model, x = perceptron(5, 6, 3), torch.randn(40, 5, generator=generator)
    y = torch.randint(0, 3, (40,), generator=generator)
    start, *teachers = (random_state(model, seed) for seed in range(3))
    options = {"temperature": 3.0, "labels": 0.5, "epochs": 1}
    found = distill(model, start, teachers, Batches(x, y, 15), weights=[3, 1], options=options)
    z, logits = outputs(model, start, x), [outputs(model, t, x) for t in teachers]
    p = 0.75 * (logits[0] / 3).softmax(1) + 0.25 * (logits[1] / 3).softmax(1)
    slow = 9 * (p * (p.log() - (z / 3).log_softmax(1))).sum(1).mean()
    slow += 0.5 * -z.log_softmax(1)[torch.arange(40), y].mean()
    assert found.loss[0] == pytest.approx(float(slow), rel=1e-5)


def test_the_same_seed_gives_the_same_student_and_inputs_stay(generator):
    model, x = perceptron(5, 6, 3), torch.randn(40, 5, generator=generator)
    states = [random_state(model, seed) for seed in range(3)]
    before = [{name: value.clone() for name, value in state.items()} for state in states]
    data = Batches(x, torch.zeros(40, dtype=torch.int64))
    runs = [
        distill(model, states[0], states[1:], data, seed=seed, options={"batch_size": 7})
        for seed in (1, 1, 2)
    ]
    assert runs[0].loss == runs[1].loss
    assert runs[0].loss != runs[2].loss
    assert all(torch.equal(runs[0].params[n], runs[1].params[n]) for n in states[0])
    for state, kept in zip(states, before, strict=True):
        assert all(torch.equal(state[name], kept[name]) for name in kept)


def test_labels_are_not_looked_at_unless_they_have_a_weight(generator):
    model, x = perceptron(5, 6, 3), torch.randn(40, 5, generator=generator)
    states = [random_state(model, seed) for seed in range(2)]
    one, two = (
        distill(model, states[0], states[1:], Batches(x, torch.full((40,), label)))
        for label in (0, 99)
    )
    assert one.loss == two.loss


@pytest.mark.parametrize("name", ["resnet-batch", "resnet-layer", "vit", "cnn"])
def test_every_architecture_learns(name):
    model, data = architecture(name), synthetic_batches(name, 60)
    states = [random_state(model, seed) for seed in range(3)]
    options = {"epochs": 4, "batch_size": 20, "lr": 0.01}
    found = distill(model, states[0], states[1:], data, options=options)
    assert min(found.loss) < found.loss[0]
    assert list(found.params) == list(states[0])
    evaluate(model, found.params, data)


def test_tied_tensors_stay_one():
    model = network("tied embeddings")
    (x,) = network_inputs("tied embeddings", 30)
    states = [random_state(model, seed) for seed in range(2)]
    data = Batches(x, torch.zeros(30, dtype=torch.int64))
    found = distill(model, states[0], states[1:], data, options={"epochs": 3, "lr": 0.01})
    assert torch.equal(found.params["embed.weight"], found.params["unembed.weight"])
    assert not torch.equal(found.params["embed.weight"], states[0]["embed.weight"])


def test_a_network_with_one_output_learns_yes_and_no(generator):
    model, x = perceptron(5, 6, 1), torch.randn(60, 5, generator=generator)
    states = [random_state(model, seed) for seed in range(2)]
    data = Batches(x, torch.zeros(60, dtype=torch.int64))
    found = distill(model, states[0], states[1:], data, options={"lr": 0.05, "epochs": 30})
    assert found.loss[-1] < 0.1 * found.loss[0]


def test_stopping_gives_the_best_student_so_far(generator):
    model, x = perceptron(5, 6, 3), torch.randn(40, 5, generator=generator)
    states = [random_state(model, seed) for seed in range(2)]
    data = Batches(x, torch.zeros(40, dtype=torch.int64))
    calls = []

    def stop(done, total, note):
        calls.append((done, total, note))
        if done == 6:
            raise StoppedError("enough")

    found = distill(
        model, states[0], states[1:], data, options={"batch_size": 10}, on_progress=stop
    )
    assert found.stopped
    assert [call[:2] for call in calls] == [(k, 40) for k in range(1, 7)]
    assert len(found.loss) == 2
    assert not torch.equal(found.params["layers.0.weight"], states[0]["layers.0.weight"])


def test_what_cannot_be_distilled_is_refused(generator):
    model, x = perceptron(5, 6, 3), torch.randn(10, 5, generator=generator)
    state, data = random_state(model, 1), Batches(x, torch.zeros(10, dtype=torch.int64))
    with pytest.raises(MergingError, match="got 0 teachers and 0 shares"):
        distill(model, state, [], data)
    with pytest.raises(MergingError, match="got 1 teachers and 2 shares"):
        distill(model, state, [state], data, weights=[1, 2])
    with pytest.raises(MergingError, match="must be positive"):
        distill(model, state, [state, state], data, weights=[1, -1])
    with pytest.raises(DataError, match="none were given"):
        distill(model, state, [state], [])
    with pytest.raises(DataError, match="the targets are numbers"):
        distill(model, state, [state], Batches(x, torch.zeros(10)))
    with pytest.raises(ArchitectureMismatchError, match=r"layers.0.weight"):
        distill(model, state, [random_state(perceptron(5, 7, 3), 1)], data)
