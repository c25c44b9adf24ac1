"""The diagonal Fisher against a loop over single examples."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

import merging
from merging.files.data.batches import Batches
from merging.fusion.curvature.per_example_squares import SumOfSquares
from merging.schema.errors import DataError, MergingError, UnknownNameError

PAIRS = (
    "digits-mlp-256", "mnist-cnn", "mnist-vit", "mnist-resnet-bn", "mnist-resnet-ln",
    "mnist1d-conv",
)  # fmt: skip


@pytest.fixture(scope="module", params=PAIRS)
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


class Odd(nn.Module):
    """Layers used in ways that single layers cannot be squared for, and some that can."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(7, 8, padding_idx=0)
        self.place, self.first = nn.Parameter(torch.randn(1, 4, 8)), nn.Parameter(torch.ones(1, 1))
        self.across, self.twice, self.tied = (nn.Linear(8, 8) for _ in range(3))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm, self.groups = nn.LayerNorm((4, 8)), nn.GroupNorm(2, 4)
        self.conv = nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2)
        self.head = nn.Linear(24, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.norm(self.words(tokens) + self.place * self.first)
        x = self.across(x.transpose(0, 1)).transpose(0, 1)  # reads examples along another axis
        x = F.relu(self.twice(F.relu(self.twice(x), inplace=True)), inplace=True)
        x = self.tied(x) + F.linear(x, self.tied.weight)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(F.relu(self.conv(self.groups(x)), inplace=True).flatten(1))


def test_layers_of_many_kinds_and_odd_uses_are_right_too():
    torch.manual_seed(0)
    model = Odd().eval()
    data = Batches(torch.randint(0, 7, (9, 4)), torch.arange(9) % 3, 4)
    params = dict(model.state_dict())
    found = merging.diagonal_fisher(model, params, data, labels="true")
    for name, value in looped(model, params, data, 9).items():
        scale = max(1e-9, float(value.max()))
        torch.testing.assert_close(found[name], value, atol=1e-5 * scale, rtol=1e-4)
    sums = SumOfSquares(model, params, data.inputs[:3])
    # What layers know by themselves is not left to the slow way, and nothing else is taken.
    assert sums.by_layer == {"words", "norm", "groups", "conv", "head"}


def test_models_that_change_their_inputs_in_place_are_squared_by_layer():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(),
        nn.Linear(64, 3),
    ).eval()  # fmt: skip
    sums = SumOfSquares(model, model.state_dict(), torch.randn(3, 1, 4, 4))
    assert sums.by_layer == {"0", "1", "4"}


def test_the_scale_of_the_sum_is_the_size_of_the_data_set_times_the_mean():
    mean = {"w": torch.tensor([0.25])}
    assert merging.on_sum_scale(mean, 8)["w"].tolist() == [2.0]
    assert mean["w"].tolist() == [0.25]
    with pytest.raises(MergingError, match="number of examples must be positive, not 0"):
        merging.on_sum_scale(mean, 0)


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
    numbers = Batches(torch.zeros(2, 1), torch.zeros(2, 2))
    with pytest.raises(DataError, match=r"class numbers .* torch.float32"):
        merging.diagonal_fisher(pair.model, pair.params_a, numbers)
