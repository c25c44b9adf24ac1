"""Fusion rules: their identities, exactness on quadratics, and what all rules promise."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch

import merging
from merging.checkpoints import open_checkpoint
from merging.errors import MergingError, UnknownNameError
from merging.fusion import RULES, fuse, implied_weights, remove_task
from merging.fusion.base import FusionProblem

NAMES = list(RULES)


def state(seed: int, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "w": torch.randn(5, 4, generator=generator, dtype=dtype),
        "b": torch.randn(5, generator=generator, dtype=dtype),
        "steps": torch.tensor(seed),
    }


def positive(seed: int) -> dict[str, torch.Tensor]:
    return {k: v.abs() + 0.1 for k, v in state(seed).items() if v.is_floating_point()}


BASE, A, B = state(0), state(1), state(2)
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


# What all rules promise


@pytest.mark.parametrize("rule", NAMES)
def test_inputs_stay_and_what_is_not_floating_is_the_first_models(rule):
    given = (BASE, A, B)
    before = [{k: v.clone() for k, v in s.items()} for s in given]
    result = fused(rule)
    for now, then in zip(given, before, strict=True):
        assert all(torch.equal(now[k], then[k]) for k in now)
    assert int(result["steps"]) == 1
    assert all(result[k].data_ptr() != A[k].data_ptr() for k in A)


@pytest.mark.parametrize("rule", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_types_are_kept(rule, dtype):
    models = [state(k, dtype) for k in (1, 2)]
    result = fused(rule, models, base=state(0, dtype))
    assert result["w"].dtype == dtype
    assert result["w"].isfinite().all()


@pytest.mark.parametrize("rule", NAMES)
def test_files_are_read_as_they_are_needed(rule, tmp_path):
    paths = [tmp_path / f"{k}.safetensors" for k in range(3)]
    for path, params in zip(paths, (A, B, BASE), strict=True):
        merging.write_checkpoint(path, params)
    with ExitStack() as files:
        a, b, base = (files.enter_context(open_checkpoint(path)) for path in paths)
        equal(fused(rule, [a, b], base=base), fused(rule))


@pytest.mark.parametrize("rule", [n for n in NAMES if n not in ("slerp", "dare", "ties")])
def test_the_order_of_the_models_does_not_count(rule):
    equal(fused(rule), fused(rule, (B, A), fishers=FISHERS[::-1]))


@pytest.mark.parametrize("rule", [n for n in NAMES if RULES[n].card.needs_base])
def test_a_rule_without_the_base_it_needs_says_so(rule):
    with pytest.raises(MergingError, match="needs the base"):
        fused(rule, base=None)


@pytest.mark.parametrize("rule", [n for n in NAMES if RULES[n].card.needs_fishers])
def test_a_rule_without_the_curvature_it_needs_says_so(rule):
    with pytest.raises(MergingError, match="fisher"):
        fused(rule, fishers=None)


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
    problem = FusionProblem([A, B], BASE, [1.0, 0.5], FISHERS, BASE_FISHER)
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": []}, "no models"),
        ({"weights": [1.0]}, "2 models have 1 weights"),
        ({"weights": [1.0, -1.0]}, "add up to 0"),
        ({"fishers": FISHERS[:1]}, "2 models have 1 fishers"),
        ({"models": [A, {k: v for k, v in B.items() if k != "b"}]}, "different tensors"),
        ({"models": [A, {**B, "b": torch.zeros(7)}]}, r"'b' is \[5\] in model 1 and \[7\]"),
    ],
)
def test_what_does_not_fit_is_said(changes, message):
    with pytest.raises(MergingError, match=message):
        fuse("average", **{"models": [A, B], **changes})


def test_unknown_rules_and_options_are_named():
    with pytest.raises(UnknownNameError, match="choose from average"):
        fuse("sum", models=[A])
    with pytest.raises(UnknownNameError, match="it has density, scale"):
        fused("ties", options={"k": 1})
