"""The paper's own small networks, written out (Ainsworth et al. 2023, §4 and A.6, A.7.2)."""

import itertools

import pytest
import torch
from torch import nn

from merging.matching import match
from merging.models.architectures.registry import build_model
from merging.models.zoo.pairs import counterexample
from merging.symmetry import find_symmetry
from merging.symmetry.permutation import permute
from tests.oracles import distance_squared, inner_product, mix, outputs

SWAP, KEEP = torch.tensor([1, 0]), torch.tensor([0, 1])
EPSILON = 1e-3


def params(*tensors):
    """A state dict of the two-unit perceptron from weight, bias, weight, bias, ..."""
    names = [f"layers.{k}.{kind}" for k in range(3) for kind in ("weight", "bias")]
    return {name: torch.tensor(value) for name, value in zip(names, tensors, strict=True)}


# Eq. 4 and 5, as printed.
TWO_A = params(
    [[-1.0, 0.0], [0.0, -1.0]], [1.0, 0.0], [[-1.0, 0.0], [0.0, 1.0]], [1.0, 0.0],
    [[-1.0, -1.0]], [0.0],
)  # fmt: skip
TWO_B = params(
    [[1.0, 0.0], [0.0, 1.0]], [0.0, 1.0], [[1.0, 0.0], [0.0, -1.0]], [0.0, 1.0],
    [[-1.0, -1.0]], [0.0],
)  # fmt: skip


@pytest.fixture(scope="module")
def two_units():
    model = build_model({"architecture": "mlp", "widths": [2, 2, 2, 1]})
    return model, find_symmetry(model, (torch.randn(4, 2),))


def choices(spec):
    """All four permutations: identity, second layer, first layer, both."""
    first, second = sorted(spec.sizes)
    return [{first: p1, second: p2} for p1, p2 in itertools.product((KEEP, SWAP), (KEEP, SWAP))]


def quadrant(n=20_000):
    x = 2 * torch.rand(n, 2, generator=torch.Generator().manual_seed(1)) - 1
    return x, (x[:, 0] < 0) & (x[:, 1] > 0)


def test_the_bundled_pair_is_the_one_that_is_printed():
    for written, bundled in (TWO_A, counterexample(0)), (TWO_B, counterexample(1)):
        assert written.keys() == bundled.keys()
        assert all(torch.equal(written[name], bundled[name]) for name in written)


def test_both_networks_are_right_everywhere(two_units):
    model, _ = two_units
    x, target = quadrant()
    for state in TWO_A, TWO_B:
        answer = outputs(model, state, x)[:, 0] >= 0
        assert float((answer == target).float().mean()) > 0.9999


def test_the_objective_of_the_four_permutations_is_that_by_hand(two_units):
    _, spec = two_units
    values = [inner_product(spec, perms, TWO_A, TWO_B, TWO_A) for perms in choices(spec)]
    assert values == [-2, 1, 3, 6]
    distances = [distance_squared(TWO_A, permute(spec, p, TWO_B)) for p in choices(spec)]
    assert distances == [20, 14, 10, 4]


def test_the_midpoint_fails_under_all_four_permutations(two_units):
    model, spec = two_units
    x, target = quadrant()
    for perms in choices(spec):
        middle = mix([TWO_A, permute(spec, perms, TWO_B)], [0.5, 0.5])
        answer = outputs(model, middle, x)[:, 0] >= 0
        assert float((answer != target).float().mean()) == pytest.approx(0.25, abs=0.012)


@pytest.mark.parametrize("seed", range(4))
def test_weight_matching_swaps_both_and_still_fails(two_units, seed):
    model, spec = two_units
    found = match("weight", model, TWO_A, TWO_B, spec=spec, seed=seed)
    assert all(torch.equal(perm, SWAP) for perm in found.permutations.values())
    assert found.objective[-1] == pytest.approx(6)
    assert found.objective[0] == pytest.approx(-2)


@pytest.fixture(scope="module")
def linear_layers():
    model = nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in ((1, 2), (2, 2), (2, 1))))
    names = [f"{k}.weight" for k in range(3)]
    first = [[1.0], [1.0 + EPSILON]]
    a = dict(zip(names, ([*map(torch.tensor, (first, [[1.0, 0], [0, EPSILON]], [[1.0, 0]]))]),
                 strict=True))  # fmt: skip
    b = dict(zip(names, ([*map(torch.tensor, (first, [[0.0, 0], [0, 1.0]], [[0, 1.0]]))]),
                 strict=True))  # fmt: skip
    return model.eval(), find_symmetry(model, (torch.randn(4, 1),)), a, b


def test_greedy_layers_fail_where_the_whole_succeeds(linear_layers):
    model, spec, a, b = linear_layers
    values = [inner_product(spec, perms, a, b, a) for perms in choices(spec)]
    assert values == pytest.approx([2.003, 3.002, 2.002, 4.002], abs=1e-5)
    middles = [
        float(outputs(model, mix([a, permute(spec, perms, b)], [0.5, 0.5]), torch.ones(1, 1)))
        for perms in choices(spec)
    ]
    assert middles == pytest.approx([0.5005, 1.0005, 0.5005, 1.0005], abs=1e-5)

    # Layer by layer: the first prefers to stay, and then so does the second.
    first, second = sorted(spec.sizes)

    def part(perms, name):
        return inner_product(spec, perms, a, b, [name])

    assert part({first: KEEP}, "0.weight") > part({first: SWAP}, "0.weight")
    assert part({second: KEEP}, "1.weight") > part({second: SWAP}, "1.weight")


@pytest.mark.parametrize("seed", range(6))
def test_coordinate_descent_swaps_both_in_any_order(linear_layers, seed):
    model, spec, a, b = linear_layers
    found = match("weight", model, a, b, spec=spec, seed=seed, options={"restarts": 1})
    assert all(torch.equal(perm, SWAP) for perm in found.permutations.values())
    assert found.objective[-1] == pytest.approx(4.002, abs=1e-5)
