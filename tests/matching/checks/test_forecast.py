"""What is said of two models before they are matched: precision, time, memory."""

from __future__ import annotations

import math
import re
import time

import pytest
import torch

import merging
from merging.files.data.batches import Batches
from merging.matching.checks.forecast import calibrate, foresee, precision_warnings
from merging.matching.search import weight_similarity


@pytest.fixture(scope="module")
def pair():
    return merging.load_pair("digits-mlp-256")


@pytest.fixture(scope="module")
def spec(pair):
    return merging.find_symmetry(pair.model, (pair.data.test.inputs[:2],))


@pytest.fixture(scope="module")
def found(pair, spec):
    return foresee(pair.model, spec, pair.params_a, pair.params_b, pair.data.test)


def test_the_time_of_a_sweep_is_of_the_order_that_matching_takes(pair, spec, found):
    matched = merging.match(
        "weight", pair.model, pair.params_a, pair.params_b, spec=spec, options={"restarts": 1}
    )
    sweep = matched.seconds / (len(matched.objective) - 1)
    assert sweep / 8 < found.sweep_seconds < 8 * sweep
    assert found.match_seconds == pytest.approx(3 * 10 * found.sweep_seconds)


def test_larger_groups_take_longer(pair):
    speed = calibrate()
    assert 4 * speed.assignment(500) <= speed.assignment(1000) <= 8.01 * speed.assignment(500)
    assert speed.flops > 1e7


def test_memory_is_that_of_the_models_and_of_the_similarities(found):
    assert found.model_bytes == 150_794 * 2 * 12
    assert found.similarity_bytes == 8 * 256**2 * (3 + 4)
    assert (found.groups, found.largest_group) == (3, 256)


def test_points_per_second_are_of_the_order_that_a_curve_takes(pair, found):
    start = time.perf_counter()
    merging.interpolate(pair.model, pair.params_a, pair.params_b, pair.data.test, 9)
    points = 9 / (time.perf_counter() - start)
    assert points / 10 < found.points_per_second < 10 * points


def test_without_examples_no_points_are_promised(pair, spec):
    none = Batches(torch.empty(0, 64), torch.empty(0).long())
    found = foresee(pair.model, spec, pair.params_a, pair.params_b, none)
    assert math.isnan(found.points_per_second)


def test_large_models_are_compared_one_tensor_at_a_time(monkeypatch, pair, spec, found):
    numbers = sum(value.numel() for value in pair.params_a.values())
    assert found.model_bytes == 2 * (4 + 8) * numbers
    monkeypatch.setattr(weight_similarity, "KEPT_BYTES", 8 * numbers - 1)
    large = foresee(pair.model, spec, pair.params_a, pair.params_b, pair.data.test)
    assert large.model_bytes == 2 * 4 * numbers + 2 * 8 * 256 * 256


def test_nothing_is_odd_about_a_bundled_pair(found):
    assert found.warnings == ()
    assert found.dtypes_a == ("8 × float32",)
    assert not found.shared_start


def test_a_common_start_is_seen_before_anything_is_matched(pair, spec):
    tuned = {name: 1.01 * value for name, value in pair.params_a.items()}
    assert foresee(pair.model, spec, pair.params_a, tuned, pair.data.test).shared_start


PLAIN = {"w": torch.linspace(0.5, 1.0, 50), "n": torch.tensor(3)}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("half", torch.ones(3, dtype=torch.float16), r"^A is in float16, about 3 decimal digits"),
        ("brain", torch.ones(3, dtype=torch.bfloat16), r"^A is in bfloat16, about 2 decimal"),
        ("double", torch.ones(3, dtype=torch.float64), r"^A is in float64. It is computed in"),
        ("subnormal", torch.tensor([1e-40, 1.0, 0.0]), r"^1 number of A is subnormal"),
        ("large", torch.tensor([7e4, 8e4, 9e4]), r"^3 numbers of A are beyond 6.55e\+04 .*float16"),
        ("huge", torch.tensor([3.395e38] * 2), r"^2 numbers of A are beyond 3.39e\+38 .*bfloat16"),
        ("small", torch.full((9,), 1e-9), r"^15% of the numbers of A are too small for float16"),
        ("wide", torch.tensor([1.0, 1.0, 1.0, 1e5]), r"^In A, the largest .*: wide \(1e\+05 times"),
    ],
)
def test_what_is_odd_about_numbers_is_said(name, value, words):
    lines = precision_warnings({**PLAIN, name: value}, PLAIN)
    assert any(re.search(words, line) for line in lines), lines


def test_numbers_of_usual_sizes_give_no_warning():
    assert precision_warnings(PLAIN, PLAIN) == ()


def test_two_precisions_are_named_with_the_first_tensor():
    half = {**PLAIN, "w": PLAIN["w"].half()}
    lines = precision_warnings(half, PLAIN)
    assert any("differ in precision (the first is w: float16 and float32)" in x for x in lines)


def test_a_subnormal_half_is_found():
    lines = precision_warnings({"w": torch.tensor([1e-6, 1.0]).half()}, {})
    assert any("1 number of A is subnormal" in line for line in lines)
