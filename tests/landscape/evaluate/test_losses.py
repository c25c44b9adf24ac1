"""Losses of next tokens and of numbers, by hand; those of classes are in test_evaluation."""

import math

import pytest
import torch

from merging.landscape.evaluate.losses import score, unit_for
from merging.schema.errors import DataError
from merging.schema.records.loss_unit import unit_of_loss


@pytest.mark.parametrize(
    ("targets", "unit"),
    [(torch.tensor([0, 1]), "nats"), (torch.tensor([0.5, 1.0]), "squared error")],
    ids=["classes", "numbers"],
)
def test_the_unit_is_that_of_the_loss_which_targets_ask_for(targets, unit):
    _, answers = score(torch.zeros(2, 2 if unit == "nats" else 1), targets)
    assert unit_for(targets) == unit_of_loss(answers.float().numpy()) == unit


def test_numbers_have_their_mean_squared_error_and_no_right_answer():
    loss, answer = score(torch.tensor([[1.0, 3.0], [0.0, 0.0]]), torch.tensor([[0.0, 1.0], [0, 0]]))
    assert loss.tolist() == [2.5, 0.0]
    assert answer.isnan().all()


def test_one_number_per_example_may_come_without_an_axis():
    loss, _ = score(torch.tensor([[1.0], [3.0]]), torch.tensor([1.0, 1.0]))
    assert loss.tolist() == [0.0, 4.0]


def test_tokens_are_averaged_within_an_example_and_negative_ones_left_out():
    outputs = torch.zeros(2, 3, 4)
    outputs[0, 0, 2] = 50.0
    loss, share = score(outputs, torch.tensor([[2, 1, -1], [0, 0, 0]]))
    assert loss.tolist() == pytest.approx([math.log(4) / 2, math.log(4)])
    assert share.tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("shape", "targets"),
    [
        ((2, 3), torch.zeros(2, 2)),
        ((2, 4), torch.zeros(2, 3, dtype=torch.int64)),
        ((2,), torch.zeros(2)),
    ],
)
def test_outputs_of_another_form_are_refused(shape, targets):
    with pytest.raises(DataError, match="expected one"):
        score(torch.zeros(shape), targets)


def test_a_token_beyond_the_vocabulary_is_refused():
    with pytest.raises(DataError, match="labels run from 0 to 4"):
        score(torch.zeros(1, 2, 4), torch.tensor([[0, 4]]))
