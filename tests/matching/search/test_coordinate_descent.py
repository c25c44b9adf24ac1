"""Weight matching's inner parts: similarities, objective, coordinate descent."""

import math

import pytest
import torch

from merging.matching.problem import MatchProblem
from merging.matching.search.coordinate_descent import descend
from merging.matching.search.kept_similarity import RunningSimilarity
from merging.matching.search.weight_similarity import WeightSimilarity
from merging.models.state_dict import distance, norm
from merging.symmetry import find_symmetry
from merging.symmetry.permutation import identity_permutations, invert, permute, random_permutations
from tests.cases import (
    CONFIGS,
    NETWORKS,
    architecture,
    architecture_symmetry,
    network,
    network_symmetry,
    perceptron,
    random_state,
)
from tests.oracles import (
    all_permutations,
    best_assignment,
    inner_product,
    moving_permutations,
    partition,
    permuted,
)


def problem_of(name):
    model, spec = network(name), network_symmetry(name).spec
    return MatchProblem(model, spec, random_state(model, 1), random_state(model, 2))


def similarity_of(problem):
    return WeightSimilarity(problem.spec, problem.params_a, problem.params_b, problem.weights)


def moved_parameters(problem):
    """Parameters that some group touches, which is what the objective counts."""
    return [n for n in problem.weights if any(e.groups for e in problem.spec.axes[n])]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_objective_is_the_inner_product_with_the_permuted_model(name):
    problem = problem_of(name)
    for seed in range(2):
        perms = moving_permutations(problem.spec.shapes, seed)
        slow = inner_product(
            problem.spec, perms, problem.params_a, problem.params_b, moved_parameters(problem)
        )
        assert similarity_of(problem).objective(perms) == pytest.approx(slow, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_swapping_two_units_changes_the_objective_as_the_similarity_says(name):
    problem = problem_of(name)
    similarity = similarity_of(problem)
    generator = torch.Generator().manual_seed(0)
    base = random_permutations(problem.spec, generator)
    start = similarity.objective(base)
    for group, n in problem.spec.sizes.items():
        if similarity.is_quadratic(group) or group in similarity.nested:
            continue
        matrix = similarity.matrix(group, base)
        assert matrix.shape == (n, n)
        assert matrix.dtype == torch.float64
        for _ in range(4):
            i, j = torch.randperm(n, generator=generator)[:2].tolist()
            perm = base[group].clone()
            perm[[i, j]] = perm[[j, i]]
            gain = similarity.objective({**base, group: perm}) - start
            rows = torch.arange(n)
            said = matrix[rows, perm].sum() - matrix[rows, base[group]].sum()
            assert float(said) == pytest.approx(gain, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_similarity_that_is_kept_up_to_date_equals_one_made_afresh(name):
    problem = problem_of(name)
    similarity = similarity_of(problem)
    running = RunningSimilarity(similarity)
    generator = torch.Generator().manual_seed(3)
    perms = identity_permutations(problem.spec)
    for _ in range(3):
        for group, n in problem.spec.sizes.items():
            if group not in similarity.nested:
                found, afresh = running.matrix(group, perms), similarity.matrix(group, perms)
                torch.testing.assert_close(found, afresh, rtol=0, atol=1e-12)
            i, j = torch.randint(n, (2,), generator=generator).tolist()
            perms[group] = perms[group].clone()
            perms[group][..., [i, j]] = perms[group][..., [j, i]]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_best_pairing_of_a_group_is_the_best_of_all_permutations(name):
    problem = problem_of(name)
    similarity = similarity_of(problem)
    base = moving_permutations(problem.spec.shapes, 5)
    for group, n in problem.spec.sizes.items():
        if similarity.is_quadratic(group) or n > 4 or group in similarity.nested:
            continue
        rest = similarity.objective(base) - float(
            similarity.matrix(group, base)[torch.arange(n), base[group]].sum()
        )
        best = max(similarity.objective({**base, group: p}) for p in all_permutations(n))
        by_matrix = best_assignment(similarity.matrix(group, base)) + rest
        assert by_matrix == pytest.approx(best, rel=1e-9, abs=1e-9)


def test_groups_that_sit_twice_on_a_parameter_are_known():
    assert similarity_of(problem_of("recurrent")).is_quadratic("inward.weight[0]")
    assert similarity_of(problem_of("outer product")).is_quadratic("fc.weight[0]")
    assert not similarity_of(problem_of("gate by chunk")).is_quadratic("both.weight[0].0")
    for name in ("perceptron", "dense concatenation", "grouped convolution"):
        problem = problem_of(name)
        assert not any(similarity_of(problem).is_quadratic(g) for g in problem.spec.sizes)


def test_neighbours_share_a_parameter():
    similarity = similarity_of(problem_of("dense concatenation"))
    groups = [f"{layer}.weight[0]" for layer in ("one", "two", "three")]
    assert similarity.neighbours(groups[0]) == {groups[1], groups[2]}
    assert similarity.neighbours(groups[2]) == {groups[0], groups[1]}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_larger_inner_product_is_a_smaller_distance(name):
    model, spec = architecture(name), architecture_symmetry(name).spec
    a, b = random_state(model, 1), random_state(model, 2)
    problem = MatchProblem(model, spec, a, b)
    names = problem.weights
    for seed in range(3):
        moved = permute(spec, moving_permutations(spec.shapes, seed), b)
        part_a, part_b = ({n: params[n] for n in names} for params in (a, moved))
        inner = sum(float((part_a[n].double() * part_b[n].double()).sum()) for n in names)
        squared = norm(part_a) ** 2 + norm({n: b[n] for n in names}) ** 2 - 2 * inner
        assert distance(part_a, part_b) ** 2 == pytest.approx(squared, rel=1e-6)


def test_running_statistics_and_second_names_are_not_compared():
    problem = problem_of("norms")
    assert not any("running" in name or "num_batches" in name for name in problem.weights)
    assert "embed.weight" in problem_of("tied embeddings").weights
    assert "unembed.weight" not in problem_of("tied embeddings").weights


@pytest.mark.parametrize("name", NETWORKS)
def test_descent_never_falls_and_counts_what_it_gains(name):
    problem = problem_of(name)
    similarity = similarity_of(problem)
    start = moving_permutations(problem.spec.shapes, 9)
    kept = {group: perm.clone() for group, perm in start.items()}
    found = descend(similarity, start, torch.Generator().manual_seed(0), max_sweeps=100)
    assert found.converged
    assert all(b >= a for a, b in zip(found.objective, found.objective[1:], strict=False))
    assert found.objective[0] == pytest.approx(similarity.objective(start), rel=1e-9, abs=1e-9)
    end = similarity.objective(found.permutations)
    assert found.objective[-1] == pytest.approx(end, rel=1e-9, abs=1e-9)
    assert all(torch.equal(start[group], kept[group]) for group in start)


@pytest.mark.parametrize("name", NETWORKS)
def test_descent_ends_where_no_single_group_can_gain(name):
    problem = problem_of(name)
    similarity = similarity_of(problem)
    start = identity_permutations(problem.spec)
    found = descend(similarity, start, torch.Generator().manual_seed(1), max_sweeps=100)
    reached = similarity.objective(found.permutations)
    for group, n in problem.spec.sizes.items():
        if n > 4 or similarity.is_quadratic(group):
            continue
        for perm in all_permutations(n):
            other = similarity.objective({**found.permutations, group: perm})
            assert other <= reached + 1e-9 * abs(reached)


def test_one_hidden_layer_is_solved_exactly_in_one_step():
    model = perceptron(4, 5, 3)
    spec = find_symmetry(model, (torch.randn(3, 4),))
    problem = MatchProblem(model, spec, random_state(model, 1), random_state(model, 2))
    similarity = similarity_of(problem)
    (group,) = spec.sizes
    found = descend(
        similarity, identity_permutations(spec), torch.Generator().manual_seed(0), max_sweeps=5
    )
    best = max(similarity.objective({group: perm}) for perm in all_permutations(5))
    assert found.objective[-1] == pytest.approx(best)


def test_sweeps_are_reported_and_limited():
    problem = problem_of("dense concatenation")
    seen = []
    found = descend(
        similarity_of(problem),
        identity_permutations(problem.spec),
        torch.Generator().manual_seed(0),
        max_sweeps=1,
        on_sweep=seen.append,
    )
    assert [reached.objective for reached in seen] == [found.objective]
    assert not found.converged
    assert len(found.objective) == 2


def test_descent_does_not_depend_on_the_dtype_of_the_models():
    problem = problem_of("perceptron")
    halves = [{n: v.half() for n, v in p.items()} for p in (problem.params_a, problem.params_b)]
    wide = [{n: v.double() for n, v in p.items()} for p in halves]
    results = []
    for a, b in halves, wide:
        similarity = WeightSimilarity(problem.spec, a, b, problem.weights)
        start = identity_permutations(problem.spec)
        results.append(descend(similarity, start, torch.Generator().manual_seed(0), max_sweeps=50))
    assert results[0].objective == results[1].objective
    assert math.isfinite(results[0].objective[-1])


def test_descent_does_not_depend_on_the_scale_of_the_weights():
    problem = problem_of("perceptron")
    found = []
    for factor in 1.0, 1e-7:
        a, b = ({n: v.double() * factor for n, v in p.items()}
                for p in (problem.params_a, problem.params_b))  # fmt: skip
        similarity = WeightSimilarity(problem.spec, a, b, problem.weights)
        start = identity_permutations(problem.spec)
        found.append(descend(similarity, start, torch.Generator().manual_seed(0), max_sweeps=50))
    assert all(
        torch.equal(found[0].permutations[g], found[1].permutations[g]) for g in problem.spec.sizes
    )


def test_the_permutation_found_is_the_planted_one_undone():
    name = "concatenation then norm and flatten"
    model, spec = network(name), network_symmetry(name).spec
    a = random_state(model, 1)
    planted = moving_permutations(spec.shapes, 4)
    problem = MatchProblem(model, spec, a, permuted(spec, planted, a))
    found = descend(
        similarity_of(problem), identity_permutations(spec), torch.Generator().manual_seed(0),
        max_sweeps=50,
    )  # fmt: skip
    assert all(torch.equal(found.permutations[g], invert(planted[g])) for g in planted)
    assert partition(spec)
