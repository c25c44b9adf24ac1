"""Outputs, ensembles and calibration."""

import math

import pytest
import torch
import torch.nn.functional as F

from merging.landscape.evaluate.calibration import BINS, calibrate
from merging.landscape.evaluate.predictions import answers, ensemble, predict
from merging.models.architectures.registry import build_model
from merging.schema.errors import MergingError, UnknownNameError
from tests.cases import CONFIGS, architecture_inputs, random_state


@pytest.mark.parametrize("name", CONFIGS)
def test_predictions_are_the_models_own_outputs(name):
    model, (x,) = build_model(CONFIGS[name], seed=1), architecture_inputs(name, 5)
    params = random_state(model, 3)
    model.load_state_dict(params)
    with torch.no_grad():
        wanted = model.eval()(x)
    found = predict(model, params, [(x[:3], torch.zeros(3)), (x[3:], torch.zeros(2))])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_no_examples_are_refused():
    with pytest.raises(MergingError, match="no examples to predict"):
        predict(torch.nn.Linear(2, 2), {}, [(torch.zeros(0, 2), torch.zeros(0))])


OUTPUTS = torch.randn(3, 40, 4, generator=torch.Generator().manual_seed(1)) * 3


def test_the_ensemble_of_probabilities_has_their_mean():
    found = ensemble(list(OUTPUTS), "probabilities").softmax(1)
    torch.testing.assert_close(found, OUTPUTS.softmax(2).mean(0), rtol=1e-5, atol=1e-6)


def test_the_vote_is_what_most_models_answer():
    found = answers(ensemble(list(OUTPUTS), "vote")).tolist()
    for k, answer in enumerate(found):
        votes = [int(o[k].argmax()) for o in OUTPUTS]
        assert votes.count(answer) == max(votes.count(v) for v in votes)


def test_one_model_is_its_own_ensemble():
    wanted = OUTPUTS[0].log_softmax(1)
    for kind in ("logits", "probabilities"):
        found = ensemble([OUTPUTS[0]], kind).log_softmax(1)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_an_ensemble_of_another_kind_is_refused():
    with pytest.raises(UnknownNameError, match="unknown ensemble 'mean'; choose from 'logits'"):
        ensemble([OUTPUTS[0]], "mean")


def test_the_calibration_error_equals_a_slow_loop():
    targets = torch.randint(4, (40,), generator=torch.Generator().manual_seed(2))
    found = calibrate(OUTPUTS[0], targets)
    probabilities = F.softmax(OUTPUTS[0].double(), 1)
    error = 0.0
    for b in range(BINS):
        inside = [
            k for k in range(40) if b / BINS <= float(probabilities[k].max()) < (b + 1) / BINS
        ]
        assert int(found.counts[b]) == len(inside)
        if not inside:
            assert math.isnan(found.confidences[b])
            continue
        sure = sum(float(probabilities[k].max()) for k in inside) / len(inside)
        right = sum(int(OUTPUTS[0][k].argmax()) == int(targets[k]) for k in inside) / len(inside)
        assert float(found.confidences[b]) == pytest.approx(sure)
        assert float(found.rights[b]) == pytest.approx(right)
        error += len(inside) / 40 * abs(sure - right)
    assert found.error == pytest.approx(error)


def test_one_output_is_a_yes_or_a_no():
    outputs = torch.tensor([[2.0], [-1.0]])
    assert answers(outputs).tolist() == [1, 0]
    found = calibrate(outputs, torch.tensor([1, 1]))
    sure = [torch.sigmoid(torch.tensor(2.0)).item(), torch.sigmoid(torch.tensor(1.0)).item()]
    assert found.error == pytest.approx((1 - sure[0] + sure[1]) / 2, abs=1e-6)


def test_outputs_that_are_not_finite_count_nowhere():
    targets = torch.tensor([0, 1])
    assert math.isnan(calibrate(torch.full((2, 3), math.nan), targets).error)
    outputs = torch.tensor([[0.0, 5.0], [math.inf, -math.inf]])
    assert int(calibrate(outputs, targets).counts.sum()) == 1
