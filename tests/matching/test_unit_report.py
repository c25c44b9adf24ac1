"""How units are paired, compared by hand."""

import math

import numpy as np
import pytest
import torch

from merging.matching import describe_units
from merging.matching.problem import MatchProblem
from merging.symmetry import find_symmetry
from merging.symmetry.permutation import cycles, identity_permutations
from tests.cases import NETWORKS, network, network_symmetry, perceptron, random_state
from tests.oracles import moving_permutations, permuted


def test_the_similarity_is_the_cosine_of_incoming_and_outgoing_weights():
    model = perceptron(4, 5, 3)
    spec = find_symmetry(model, (torch.randn(2, 4),))
    a, b = random_state(model, 1), random_state(model, 2)
    perms = moving_permutations(spec.shapes, 0)
    (found,) = describe_units(MatchProblem(model, spec, a, b), perms)

    def unit(state, i):
        parts = (
            state["layers.0.weight"][i], state["layers.0.bias"][i : i + 1],
            state["layers.1.weight"][:, i],
        )  # fmt: skip
        return torch.cat(parts).double().numpy()

    def cosine(i, j):
        u, v = unit(a, i), unit(b, j)
        return u @ v / np.linalg.norm(u) / np.linalg.norm(v)

    table = np.array([[cosine(i, j) for j in range(5)] for i in range(5)])
    perm = found.permutation
    assert np.array_equal(perm, perms[found.group].numpy())
    np.testing.assert_array_equal(found.before, np.round(127 * table).astype(np.int8))
    np.testing.assert_array_equal(found.after, np.round(127 * table[:, perm]).astype(np.int8))
    np.testing.assert_allclose(found.matched, table[np.arange(5), perm], rtol=1e-6)
    margins = [table[i, perm[i]] - max(np.delete(table[i], perm[i])) for i in range(5)]
    np.testing.assert_allclose(found.margin, margins, rtol=1e-6, atol=1e-9)
    assert found.block == 1
    assert found.fixed_points == int((perm == np.arange(5)).sum())
    assert found.cycles == tuple(cycles(torch.from_numpy(perm)))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_model_and_itself_have_cosine_one_on_the_diagonal(name):
    model, spec = network(name), network_symmetry(name).spec
    a = random_state(model, 1)
    for found in describe_units(MatchProblem(model, spec, a, a), identity_permutations(spec)):
        np.testing.assert_allclose(found.matched, 1.0, rtol=1e-6)
        assert (np.diagonal(found.before) == 127).all()
        assert np.array_equal(found.before, found.after)
        assert found.fixed_points == math.prod(spec.shapes[found.group])


def test_the_other_groups_are_in_their_new_order():
    model = perceptron(4, 5, 6, 3)
    spec = find_symmetry(model, (torch.randn(2, 4),))
    a = random_state(model, 1)
    planted = moving_permutations(spec.shapes, 3)
    back = {group: torch.argsort(perm) for group, perm in planted.items()}
    problem = MatchProblem(model, spec, a, permuted(spec, planted, a))
    for found in describe_units(problem, back):
        np.testing.assert_allclose(found.matched, 1.0, rtol=1e-6)
        assert (np.diagonal(found.after) == 127).all()


def test_wide_layers_are_shown_in_blocks_of_their_strongest_entry():
    model = perceptron(3, 300, 2)
    spec = find_symmetry(model, (torch.randn(2, 3),))
    a, b = random_state(model, 1), random_state(model, 2)
    (found,) = describe_units(MatchProblem(model, spec, a, b), identity_permutations(spec))
    assert found.block == 2
    assert found.before.shape == (150, 150)
    assert found.matched.shape == (300,)

    def unit(state):
        first = [state["layers.0.weight"], state["layers.0.bias"][:, None]]
        return torch.cat([*first, state["layers.1.weight"].T], 1).double()

    u, v = (torch.nn.functional.normalize(unit(s), dim=1) for s in (a, b))
    table = (u @ v.T).numpy()
    for r, c in ((0, 0), (7, 100), (149, 149)):
        block = table[2 * r : 2 * r + 2, 2 * c : 2 * c + 2].ravel()
        strongest = block[np.abs(block).argmax()]
        assert found.before[r, c] == round(127 * strongest)
