"""Fusion rules: by hand, by their identities, and exact on quadratics."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from merging.files.data.batches import Batches
from merging.fusion import fuse, fuse_with_notes, gram_matrices, implied_weights, remove_task
from merging.fusion.problem import FusionProblem
from merging.schema.errors import DataError, MergingError


def state(seed: int, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "w": torch.randn(5, 4, generator=generator, dtype=dtype),
        "b": torch.randn(5, generator=generator, dtype=dtype),
        "steps": torch.tensor(seed),
    }


def positive(seed: int) -> dict[str, torch.Tensor]:
    return {k: v.abs() + 0.1 for k, v in state(seed).items() if v.is_floating_point()}


BASE, A, B, C = (state(k) for k in range(4))
FISHERS = [positive(3), positive(4)]
BASE_FISHER = positive(5)


def fused(rule: str, models=(A, B), **changes):
    given = {
        "models": list(models), "base": BASE, "fishers": FISHERS[: len(models)],
        "base_fisher": BASE_FISHER, **changes,
    }  # fmt: skip
    return fuse(rule, **given)


def equal(one, other, tolerance=1e-12):
    for name in ("w", "b"):
        torch.testing.assert_close(one[name], other[name], atol=tolerance, rtol=tolerance)


# By hand, and identities


def test_the_mean_by_hand():
    equal(fused("average", weights=[1, 3]), {k: (A[k] + 3 * B[k]) / 4 for k in ("w", "b")})


def test_slerp_goes_along_the_arc():
    a, b = {"w": torch.tensor([2.0, 0.0])}, {"w": torch.tensor([0.0, 2.0])}
    found = fuse("slerp", models=[a, b])["w"]
    torch.testing.assert_close(found, torch.tensor([2.0, 2.0]) / 2**0.5)
    assert torch.equal(fuse("slerp", models=[a, b], weights=[1, 0])["w"], a["w"])
    opposite = fuse("slerp", models=[a, {"w": -a["w"]}], weights=[3, 1])["w"]
    torch.testing.assert_close(opposite, a["w"] / 2)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("size", [1, 2, 3, 64, 5000])
def test_slerp_of_opposite_tensors_is_the_line(size, seed):
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(size, generator=generator)
    bent = v + 0.01 * v.norm() * torch.randn(size, generator=generator) / size**0.5
    for other in (-0.6 * v, -0.6 * bent if size > 1 else -2 * v):
        found = fuse("slerp", models=[{"w": v}, {"w": other}], weights=[2, 1])["w"]
        torch.testing.assert_close(found, (2 * v + other) / 3)


def test_slerp_of_one_entry_is_the_line():
    a, b = {"w": torch.tensor([0.3217])}, {"w": torch.tensor([-0.2019])}
    assert fuse("slerp", models=[a, b])["w"].item() == pytest.approx(0.0599)
    same_side = fuse("slerp", models=[a, {"w": torch.tensor([0.5])}])["w"]
    assert same_side.item() == pytest.approx(0.41085, rel=1e-5)


def test_slerp_over_all_weights_is_that_of_the_flat_vectors():
    generator = torch.Generator().manual_seed(3)
    a, b = ({"w": torch.randn(3, 4, generator=generator, dtype=torch.float64),
             "b": torch.randn(3, generator=generator, dtype=torch.float64)}
            for _ in range(2))  # fmt: skip
    found = fuse_with_notes(
        "slerp", models=[a, b], weights=[3, 1], options={"angle": "over all weights"}
    )
    u, v = (torch.cat([x["w"].flatten(), x["b"]]) for x in (a, b))
    omega = torch.acos(u @ v / u.norm() / v.norm())
    by_hand = (torch.sin(0.75 * omega) * u + torch.sin(0.25 * omega) * v) / torch.sin(omega)
    torch.testing.assert_close(found.params["w"].flatten(), by_hand[:12])
    torch.testing.assert_close(found.params["b"], by_hand[12:])
    assert found.notes["angle"] == pytest.approx(omega.item())
    assert not torch.allclose(found.params["b"], fuse("slerp", models=[a, b], weights=[3, 1])["b"])


def test_slerp_over_all_weights_leaves_running_statistics_out_of_the_angle():
    a, b = {"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 1.0])}
    statistics = {"n.running_var": torch.full((8,), 100.0)}
    notes = fuse_with_notes(
        "slerp", models=[a | statistics, b | statistics], options={"angle": "over all weights"}
    ).notes
    assert notes["angle"] == pytest.approx(torch.pi / 2)


def test_task_arithmetic_adds_takes_away_and_makes_analogies():
    added = fused("task_arithmetic", weights=[0.3, -0.5])
    by_hand = {k: BASE[k] + 0.3 * (A[k] - BASE[k]) - 0.5 * (B[k] - BASE[k]) for k in ("w", "b")}
    equal(added, by_hand)


def test_ties_by_hand():
    base = {"w": torch.zeros(4)}
    a, b = {"w": torch.tensor([4.0, -1.0, 2.0, 0.1])}, {"w": torch.tensor([2.0, 3.0, -3.0, 0.2])}
    found = fuse("ties", models=[a, b], base=base, options={"density": 0.75})
    # Trimmed to three of four each; signs of the sums + + -; means of those that agree.
    torch.testing.assert_close(found["w"], torch.tensor([3.0, 3.0, -3.0, 0.0]))


def test_dare_without_dropping_is_task_arithmetic_and_is_it_on_average():
    equal(fused("dare", options={"drop": 0.0}), fused("task_arithmetic"))
    draws = [fused("dare", options={"drop": 0.5}, seed=k)["w"] for k in range(2000)]
    mean = torch.stack(draws).mean(0)
    torch.testing.assert_close(mean, fused("task_arithmetic")["w"], atol=0.35, rtol=0)
    again = fused("dare", options={"drop": 0.5}, seed=7)
    equal(again, {"w": draws[7], "b": again["b"]})


def test_model_stock_of_parallel_and_of_orthogonal_tasks():
    base = {"w": torch.zeros(2)}
    a, b = {"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 1.0])}
    assert torch.equal(fuse("model_stock", models=[a, a], base=base)["w"], a["w"])
    assert torch.equal(fuse("model_stock", models=[a, b], base=base)["w"], base["w"])


def test_equal_curvatures_make_fisher_averaging_the_mean():
    equal(fused("fisher", fishers=[FISHERS[0]] * 2), fused("average"))


def test_a_common_factor_of_the_weights_does_not_count_for_fisher_averaging():
    equal(fused("fisher", weights=[1, 1]), fused("fisher", weights=[0.5, 0.5]))


def test_flat_entries_get_the_mean():
    flat = [{k: torch.zeros_like(v) for k, v in f.items()} for f in FISHERS]
    equal(fused("fisher", fishers=flat), fused("average"))


def none_like(states):
    return [{k: torch.zeros_like(v) for k, v in s.items()} for s in states]


def test_gradient_matching_without_the_bases_curvature_is_fisher_averaging():
    (zero,) = none_like([BASE_FISHER])
    found = fused("gradient_matching", base_fisher=zero, options={"delta": 0.0})
    equal(found, fused("fisher"))


def test_gradient_matching_without_task_curvature_is_task_arithmetic_and_the_mean():
    flat = none_like(FISHERS)
    found = fused("gradient_matching", fishers=flat, weights=[0.7, 0.2])
    equal(found, fused("task_arithmetic", weights=[0.7, 0.2]))
    equal(fused("gradient_matching", fishers=flat, weights=[0.5, 0.5]), fused("average"))


def test_implied_weights_are_those_of_the_rule():
    problem = FusionProblem(
        models=[A, B], base=BASE, weights=[1.0, 0.5], fishers=FISHERS, base_fisher=BASE_FISHER
    )
    c = implied_weights(problem, "w")
    by_hand = BASE["w"] + c[0] * (A["w"] - BASE["w"]) + c[1] * (B["w"] - BASE["w"])
    torch.testing.assert_close(fused("gradient_matching", weights=[1, 0.5])["w"], by_hand)


# Exact on quadratics (diagonal curvature): fine-tuning and the joint target in closed form


def quadratic(seed: int):
    """Curvature and minimum of a loss `(theta - m)' H (theta - m) / 2` with diagonal H."""
    generator = torch.Generator().manual_seed(seed)
    h = torch.rand(6, generator=generator, dtype=torch.float64) + 0.05
    return h, torch.randn(6, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("alphas", [(1.0, 1.0), (0.3, 0.9)])
def test_gradient_matching_is_the_joint_solution_of_quadratics(alphas):
    (h0, base), *tasks = quadratic(10), quadratic(11), quadratic(12)
    models = [{"w": (h0 * base + h * m) / (h0 + h)} for h, m in tasks]  # Eq. 8
    joint = h0 * base + sum(a * h * m for a, (h, m) in zip(alphas, tasks, strict=True))
    joint /= h0 + sum(a * h for a, (h, _) in zip(alphas, tasks, strict=True))  # Eq. 9
    found = fuse(
        "gradient_matching", models=models, base={"w": base}, weights=alphas,
        fishers=[{"w": h} for h, _ in tasks], base_fisher={"w": h0}, options={"delta": 0.0},
    )  # fmt: skip
    torch.testing.assert_close(found["w"], joint, atol=1e-12, rtol=1e-12)


def test_removing_a_task_from_quadratics_is_exact_and_clamping_is_counted():
    (rest, centre), (h, m) = quadratic(20), quadratic(21)
    h0, base = rest + h, (rest * centre + h * m) / (rest + h)  # the base saw the task too
    tuned = {"w": (h0 * base + h * m) / (h0 + h)}
    found, clamped = remove_task({"w": base}, tuned, {"w": h0}, {"w": h}, delta=0.0)
    torch.testing.assert_close(found["w"], centre, atol=1e-12, rtol=1e-12)
    assert clamped == 0
    _, clamped = remove_task({"w": base}, tuned, {"w": 0.5 * h}, {"w": h})
    assert clamped == 1


def test_the_rule_removes_several_tasks_at_once_and_tells_the_clamped_share():
    (rest, centre), *tasks = quadratic(20), quadratic(21), quadratic(22)
    h0 = rest + sum(h for h, _ in tasks)
    base = (rest * centre + sum(h * m for h, m in tasks)) / h0
    models = [{"w": (h0 * base + h * m) / (h0 + h)} for h, m in tasks]
    given = {
        "models": models, "base": {"w": base}, "fishers": [{"w": h} for h, _ in tasks],
        "base_fisher": {"w": h0}, "options": {"delta": 0.0},
    }  # fmt: skip
    found = fuse_with_notes("remove_task", **given)
    torch.testing.assert_close(found.params["w"], centre, atol=1e-12, rtol=1e-12)
    assert found.notes["clamped_share"] == 0
    first = tasks[0][0].clone()
    first[:3] += h0[:3]  # more than there is
    given["fishers"][0] = {"w": first}
    assert fuse_with_notes("remove_task", **given).notes["clamped_share"] == 0.5


def test_the_rule_for_one_task_is_the_function():
    own = {"models": [A], "base": BASE, "fishers": FISHERS[:1], "base_fisher": BASE_FISHER}
    found = fuse_with_notes("remove_task", **own, weights=[0.4], options={"delta": 0.3})
    by_call, share = remove_task(BASE, A, BASE_FISHER, FISHERS[0], weight=0.4, delta=0.3)
    equal(found.params, by_call)
    assert found.notes == {"clamped_share": share}


def test_the_prior_is_added_to_the_bases_curvature():
    found = fused("gradient_matching", options={"delta": 0.7})
    more = {k: v + 0.7 for k, v in BASE_FISHER.items()}
    equal(found, fused("gradient_matching", base_fisher=more, options={"delta": 0.0}))


# Means


def test_wise_ft_goes_from_the_base_to_the_mean():
    equal(fused("wise_ft", options={"t": 0.0}), BASE)
    equal(fused("wise_ft", options={"t": 1.0}, weights=[1, 3]), fused("average", weights=[1, 3]))
    by_hand = {k: 0.75 * BASE[k] + 0.125 * (A[k] + B[k]) for k in ("w", "b")}
    equal(fused("wise_ft", options={"t": 0.25}), by_hand)


def test_clients_weigh_by_their_examples():
    equal(fused("fedavg", sizes=[10, 30]), fused("average", weights=[1, 3]))


def test_the_uniform_soup_is_the_mean():
    equal(fused("uniform_soup"), fused("average"))


# Task vectors


def test_negation_takes_tasks_away():
    found = fused("task_arithmetic", options={"mode": "negate", "scale": 0.5})
    equal(found, {k: BASE[k] - 0.5 * (A[k] + B[k] - 2 * BASE[k]) for k in ("w", "b")})


def test_an_analogy_carries_a_step_over():
    found = fused("task_arithmetic", (A, B, C), fishers=None, options={"mode": "analogy"})
    equal(found, {k: C[k] + B[k] - A[k] for k in ("w", "b")})
    with pytest.raises(MergingError, match="an analogy takes three models, not 2"):
        fused("task_arithmetic", options={"mode": "analogy"})


def test_factors_of_task_vectors_may_add_up_to_nothing():
    equal(fused("task_arithmetic", weights=[1, -1]), {k: BASE[k] + A[k] - B[k] for k in ("w", "b")})


def test_ties_weighs_what_agrees():
    base = {"w": torch.zeros(3)}
    a, b = {"w": torch.tensor([4.0, -1.0, 2.0])}, {"w": torch.tensor([2.0, 3.0, -1.0])}
    given = {"models": [a, b], "base": base, "weights": [3.0, 1.0]}
    found = fuse("ties", **given, options={"density": 1.0})["w"]
    torch.testing.assert_close(
        found, torch.tensor([14 / 4, 3.0, 2.0])
    )  # of -3 and 3 the upper counts
    added = fuse("ties", **given, options={"density": 1.0, "total": "added", "scale": 0.5})["w"]
    torch.testing.assert_close(added, torch.tensor([7.0, 1.5, 3.0]))


def test_ties_of_models_that_agree_is_their_mean():
    near = [{k: BASE[k] + f * A[k].abs() for k in ("w", "b")} for f in (1.0, 2.0)]
    base = {k: BASE[k] for k in ("w", "b")}
    equal(
        fuse("ties", models=near, base=base, options={"density": 1.0}), fuse("average", models=near)
    )


def test_dare_then_ties_without_dropping_is_ties_without_trimming():
    found = fused("dare", options={"drop": 0.0, "then": "TIES"})
    equal(found, fused("ties", options={"density": 1.0}))


def test_dare_drops_about_its_share_and_scales_up_the_rest():
    base, model = {"w": torch.zeros(100_000)}, {"w": torch.ones(100_000)}
    found = fuse("dare", models=[model], base=base, options={"drop": 0.75})["w"]
    assert set(found.unique().tolist()) == {0.0, 4.0}
    assert abs(float(found.mean()) - 1) < 0.03


# Checkpoints of one run, against loops as they are written down


RUN = [state(k) for k in range(10, 16)]


def test_swa_is_the_running_mean():
    mean = {k: RUN[2][k] for k in ("w", "b")}
    for n, later in enumerate(RUN[3:], start=1):
        mean = {k: (n * mean[k] + later[k]) / (n + 1) for k in mean}
    equal(fuse("swa", models=RUN, options={"skip": 2}), mean)
    with pytest.raises(MergingError, match="first 6 of 6 checkpoints leaves none"):
        fuse("swa", models=RUN, options={"skip": 6})


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.99])
def test_ema_is_the_recursion_with_its_bias_corrected(beta):
    mean = {k: torch.zeros_like(RUN[0][k]) for k in ("w", "b")}
    for later in RUN:
        mean = {k: beta * mean[k] + (1 - beta) * later[k] for k in mean}
    corrected = {k: v / (1 - beta ** len(RUN)) for k, v in mean.items()}
    equal(fuse("ema", models=RUN, options={"beta": beta}), corrected)


def test_lawa_is_the_mean_of_the_last():
    last = fuse("average", models=RUN[-4:])
    equal(fuse("lawa", models=RUN, options={"last": 4}), last)
    assert int(fuse("lawa", models=RUN, options={"last": 4})["steps"]) == 12
    equal(fuse("lawa", models=RUN, options={"last": 99}), fuse("average", models=RUN))


# Models of which some are bad


HONEST = [{k: A[k] + 0.01 * s[k] for k in ("w", "b")} for s in RUN]
LIAR = {k: 1e6 * B[k] for k in ("w", "b")}


@pytest.mark.parametrize("count", [5, 6])
def test_the_median_is_the_middle_entry(count):
    found = fuse("coordinate_median", models=RUN[:count])
    stack = np.stack([m["w"].numpy() for m in RUN[:count]])
    np.testing.assert_allclose(found["w"].numpy(), np.median(stack, 0), atol=1e-12)


@pytest.mark.parametrize("count", range(1, 23))
def test_the_middle_of_many_models_is_that_of_sorted_entries(count):
    stack = torch.randn(count, 200, generator=torch.Generator().manual_seed(count)).round(
        decimals=1
    )
    stack[:, :3] = stack[:, :3].masked_fill(torch.arange(count)[:, None] % 3 == 2, torch.nan)
    found = fuse("trimmed_mean", models=[{"w": row} for row in stack], options={"trim": 0.3})
    ends = int(0.3 * count + 1e-9)
    expected = np.sort(stack.numpy(), 0)[ends : count - ends].mean(0)  # NaN comes last
    np.testing.assert_allclose(found["w"].numpy(), expected, atol=1e-6)


def test_the_trimmed_mean_leaves_out_both_ends():
    found = fuse("trimmed_mean", models=RUN[:5], options={"trim": 0.2})
    by_hand = torch.stack([m["w"] for m in RUN[:5]]).sort(0).values[1:4].mean(0)
    torch.testing.assert_close(found["w"], by_hand, atol=1e-12, rtol=1e-12)
    equal(
        fuse("trimmed_mean", models=RUN[:4], options={"trim": 0.2}), fuse("average", models=RUN[:4])
    )


@pytest.mark.parametrize("rule", ["coordinate_median", "trimmed_mean", "krum"])
@pytest.mark.parametrize("place", [0, 2, 4])
def test_one_liar_moves_a_robust_rule_no_further_than_honest_models_are_apart(rule, place):
    models = [*HONEST[:4]]
    models.insert(place, LIAR)
    equal(fuse(rule, models=models), A, 0.05)
    assert (fuse("average", models=models)["w"] - A["w"]).abs().max() > 1e4


def test_krum_scores_by_hand_and_tells_which_model_it_kept():
    models = [{"w": torch.tensor([x])} for x in (0.0, 1.0, 3.0, 3.5, 100.0)]
    found = fuse_with_notes("krum", models=models)
    # one may be bad: the two nearest others count
    assert found.notes["scores"] == [10.0, 5.0, 4.25, 6.5, 96.5**2 + 97.0**2]
    assert found.notes["kept"] == [2]
    assert found.params["w"].tolist() == [3.0]
    several = fuse_with_notes("krum", models=models, options={"kept": 3})
    assert several.notes["kept"] == [1, 2, 3]
    assert several.params["w"].tolist() == [2.5]


def test_a_liar_far_away_does_not_blur_the_distances_of_the_others():
    models = [{"w": torch.tensor([x])} for x in (1e12, 1.0, 1.5, 1.75, 3.0)]
    scores = fuse_with_notes("krum", models=models).notes["scores"]
    assert scores[1:] == [0.8125, 0.3125, 0.625, 3.8125]


def test_krum_says_how_many_bad_models_it_can_bear():
    with pytest.raises(MergingError, match=r"keep 1 of 3 models when 1 may be bad.*assume 0 bad"):
        fuse("krum", models=RUN[:3], options={"faulty": 1})


# RegMean


def linear(seed: int, inputs: int = 6):
    """A linear layer, its inputs, and what it should answer."""
    generator = torch.Generator().manual_seed(seed)
    x, w = (torch.randn(n, inputs, generator=generator, dtype=torch.float64) for n in (50, 3))
    return {"weight": w}, x


def test_regmean_solves_the_least_squares_of_linear_models():
    layer = torch.nn.Linear(6, 3, bias=False).double()
    (w1, x1), (w2, x2) = linear(30), linear(31)
    grams = [gram_matrices(layer, w, [(x, x)]) for w, x in ((w1, x1), (w2, x2))]
    found = fuse("regmean", models=[w1, w2], grams=grams, options={"off_diagonal": 1.0})
    targets = torch.cat([x1 @ w1["weight"].T, x2 @ w2["weight"].T])
    solution = torch.linalg.lstsq(torch.cat([x1, x2]), targets).solution.T
    torch.testing.assert_close(found["weight"], solution, atol=1e-8, rtol=1e-8)


def test_regmean_of_inputs_that_have_no_correlation_weighs_columns():
    grams = [{"w": torch.diag(torch.tensor([1.0, 3.0, 0.0, 1.0]))}, {"w": torch.eye(4)}]
    found = fuse_with_notes("regmean", models=[A, B], grams=grams)
    shares = torch.tensor([1 / 2, 3 / 4, 0.0, 1 / 2], dtype=torch.float64)
    expected = {"w": shares * A["w"] + (1 - shares) * B["w"], "b": (A["b"] + B["b"]) / 2}
    equal(found.params, expected, 1e-9)
    assert found.notes == {"solved": ["w"], "averaged": ["b"]}


def test_regmean_gives_the_mean_where_no_input_says_anything():
    grams = [{"w": torch.zeros(4, 4)}] * 2
    equal(fused("regmean", grams=grams), fused("average"))


def test_regmean_refuses_matrices_of_another_network():
    with pytest.raises(MergingError, match=r"Gram matrix of 'w' is \[3, 3\].*reads 4 numbers"):
        fused("regmean", grams=[{"w": torch.eye(3)}] * 2)
    with pytest.raises(MergingError, match="no tensor of the models has a Gram matrix"):
        fused("regmean", grams=[{}, {}])


def test_the_gram_of_a_convolution_is_that_of_its_patches():
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(2, 3, (3, 2), stride=2, padding=1, dilation=(1, 2)).double()
    x = torch.randn(4, 2, 7, 6, dtype=torch.float64)
    gram = gram_matrices(conv, conv.state_dict(), [(x, x)])["weight"]
    w = conv.weight.detach().flatten(1)
    outputs = torch.nn.functional.conv2d(x, conv.weight, None, 2, 1, (1, 2)).detach()
    rows = outputs.movedim(1, -1).flatten(0, 2)
    torch.testing.assert_close(w @ gram @ w.T, rows.T @ rows / len(rows))


def test_grams_count_every_position_and_every_call():
    layer = torch.nn.Linear(3, 3)
    twice = torch.nn.Sequential(layer, layer)
    x = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0))
    gram = gram_matrices(twice, twice.state_dict(), [(x, x)], examples=2)["0.weight"]
    rows = torch.cat([x[:2].flatten(0, 1), layer(x[:2]).detach().flatten(0, 1)]).double()
    torch.testing.assert_close(gram, rows.T @ rows / 16, atol=1e-6, rtol=1e-6)
    with pytest.raises(DataError, match="need examples"):
        gram_matrices(twice, twice.state_dict(), [])


# Soups


LINE = torch.nn.Linear(1, 2)
# The model answers class 1 where `slope * x > cut`.
EXAMPLES = Batches(torch.tensor([[-2.0], [-1.0], [1.0], [2.0]]), torch.tensor([0, 0, 1, 1]))


def cut(at: float) -> dict[str, torch.Tensor]:
    return {"weight": torch.tensor([[0.0], [1.0]]), "bias": torch.tensor([0.0, -at])}


def soup(*cuts: float, rule: str = "greedy_soup", **changes):
    given = {"model": LINE, "batches": EXAMPLES, **changes}
    return fuse_with_notes(rule, models=[cut(at) for at in cuts], **given)


def test_a_greedy_soup_by_hand():
    # Right are 3, 3 and 2 of four; the first two have their mean at 0, where all are right.
    found = soup(1.5, -1.5, 3.0)
    assert found.notes == {"kept": [0, 1], "accuracies": [0.75, 0.75, 0.5], "accuracy": 1.0}
    assert found.params["bias"].tolist() == [0.0, 0.0]


def test_the_best_comes_first_and_equal_accuracy_is_no_reason_to_join():
    found = soup(3.0, 0.0, 0.5)
    assert found.notes["kept"] == [1]
    assert found.params["bias"].tolist() == [0.0, 0.0]


def test_members_join_the_running_mean_of_those_before():
    # 1.6 and -1.2 have their mean at 0.2; -4.2 would take it to -1.27.
    assert soup(1.6, -1.2, -4.2).notes["kept"] == [0, 1]
    # 6 answers half as does -2.5: their mean 1.75 is better, and with -2.6 it is 0.3.
    found = soup(6.0, -2.5, -2.6)
    assert found.notes["kept"] == [0, 1, 2]
    torch.testing.assert_close(found.params["bias"][1], torch.tensor(-0.3))


def test_a_greedy_soup_of_numbers_is_refused():
    numbers = Batches(EXAMPLES.inputs, torch.zeros(4, 2))
    with pytest.raises(DataError, match="have numbers as targets and no classes"):
        soup(1.0, batches=numbers)


def test_a_learned_soup_finds_the_member_that_is_right():
    found = soup(0.0, 50.0, -50.0, rule="learned_soup", options={"epochs": 300, "lr": 0.1})
    assert found.notes["losses"][-1] < 0.1 < found.notes["losses"][0]
    assert sum(found.notes["coefficients"]) == pytest.approx(1)
    assert abs(float(found.params["bias"][1])) < 0.5
    assert found.notes["temperature"] > 1


def test_a_learned_soup_descends_below_the_uniform_one():
    found = soup(0.0, 9.0, rule="learned_soup", options={"epochs": 100})
    assert found.notes["coefficients"][0] > 0.9
