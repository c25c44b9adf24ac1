"""The diagonal Fisher against a loop over single examples."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

import merging
from merging.data.base import Batches
from merging.errors import DataError, UnknownNameError


@pytest.fixture(scope="module", params=["digits-mlp-256", "mnist-vit", "mnist-resnet-bn"])
def pair(request):
    return merging.load_pair(request.param)


def looped(model, params, data, n):
    """Batch size 1, true labels."""
    names = [k for k, _ in model.named_parameters()]
    weights = {k: params[k].clone().requires_grad_() for k in names}
    total = {k: torch.zeros_like(params[k]) for k in names}
    for k in range(n):
        x, y = data.inputs[k : k + 1], data.targets[k : k + 1]
        loss = F.cross_entropy(functional_call(model, {**params, **weights}, (x,)), y)
        gradients = torch.autograd.grad(loss, [weights[name] for name in names])
        for name, gradient in zip(names, gradients, strict=True):
            total[name] += gradient**2
    return {name: value / n for name, value in total.items()}


def test_it_is_the_mean_of_squared_gradients_of_single_examples(pair):
    found = merging.diagonal_fisher(
        pair.model.eval(), pair.params_a, pair.data.train, labels="true", examples=12
    )
    expected = looped(pair.model.eval(), pair.params_a, pair.data.train, 12)
    for name, value in expected.items():
        scale = max(1e-9, float(value.max()))  # the bias of keys has none but rounding
        torch.testing.assert_close(found[name], value, atol=1e-5 * scale, rtol=1e-5)
    assert set(found) == {k for k, v in pair.params_a.items() if v.is_floating_point()}


def test_linear_layers_that_read_several_vectors_are_not_taken_for_simple_ones():
    class Mixer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mix, self.out = torch.nn.Linear(6, 6), torch.nn.Linear(6, 3)

        def forward(self, x):
            return self.out(torch.tanh(self.mix(x)).mean(1))

    torch.manual_seed(0)
    model, data = Mixer(), Batches(torch.randn(5, 4, 6), torch.tensor([0, 1, 2, 0, 1]))
    params = dict(model.state_dict())
    found = merging.diagonal_fisher(model, params, data, labels="true")
    for name, value in looped(model, params, data, 5).items():
        torch.testing.assert_close(found[name], value, atol=1e-7, rtol=1e-5)


def test_sampled_labels_follow_the_seed_and_come_from_the_model():
    pair = merging.load_pair("digits-mlp-undertrained")
    one, same, other = (
        merging.diagonal_fisher(pair.model, pair.params_a, pair.data.train, examples=200, seed=s)
        for s in (0, 0, 1)
    )
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert any(not torch.equal(one[k], other[k]) for k in one)


def test_bad_requests_are_refused():
    pair = merging.load_pair("two-unit-counterexample")
    with pytest.raises(UnknownNameError, match="labels"):
        merging.diagonal_fisher(pair.model, pair.params_a, pair.data.train, labels="none")
    with pytest.raises(DataError, match="needs examples"):
        merging.diagonal_fisher(pair.model, pair.params_a, [])
