import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from merging.models.state_dict import (
    check_same_architecture,
    combine,
    distance,
    dot,
    floating,
    lerp,
    norm,
    scale,
    subtract,
)
from merging.schema.errors import ArchitectureMismatchError

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def model(seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return {
        "weight": torch.randn(3, 4, generator=generator).to(dtype),
        "bias": torch.randn(3, generator=generator).to(dtype),
        "steps": torch.tensor(seed),
        "mask": torch.tensor([True, False]),
    }


def bits(tensor):
    return tensor.contiguous().flatten().view(torch.uint8).tolist()


arrays = hnp.arrays("float32", 6, elements=st.floats(width=32, allow_nan=True, allow_infinity=True))


@given(arrays, arrays)
def test_a_line_ends_exactly_at_its_models(a, b):
    params_a, params_b = {"w": torch.from_numpy(a)}, {"w": torch.from_numpy(b)}
    assert bits(lerp(params_a, params_b, 0)["w"]) == bits(params_a["w"])
    assert bits(lerp(params_a, params_b, 1)["w"]) == bits(params_b["w"])


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_line_keeps_the_dtype_and_follows_the_formula(dtype):
    a, b = model(1, dtype), model(2, dtype)
    middle = lerp(a, b, 0.3)
    expected = (0.7 * a["weight"].double() + 0.3 * b["weight"].double()).to(dtype)
    assert middle["weight"].dtype == dtype
    torch.testing.assert_close(middle["weight"], expected)


@pytest.mark.parametrize(("lam", "steps"), [(0, 1), (0.5, 1), (0.99, 1), (1, 2)])
def test_counters_come_from_model_a_except_at_the_end_of_the_line(lam, steps):
    assert lerp(model(1), model(2), lam)["steps"].item() == steps


def test_results_share_no_memory_with_the_inputs():
    a, b = model(1), model(2)
    for result in (lerp(a, b, 0), lerp(a, b, 0.5), lerp(a, b, 1), scale(a, 1)):
        for tensor in result.values():
            tensor.zero_()
    torch.testing.assert_close((a, b), (model(1), model(2)))


def test_an_infinity_in_a_corner_of_weight_zero_does_no_harm():
    good, bad = {"w": torch.ones(2)}, {"w": torch.tensor([torch.inf, torch.nan])}
    assert combine([good, bad, good], [0.5, 0, 0.25])["w"].tolist() == [0.75, 0.75]


def test_a_combination_is_the_weighted_sum():
    corners, weights = [model(k) for k in range(4)], [0.5, -1.0, 2.0, 0.25]
    expected = sum(w * c["bias"].double() for c, w in zip(corners, weights, strict=True))
    result = combine(corners, weights)
    torch.testing.assert_close(result["bias"].double(), expected, atol=1e-6, rtol=1e-6)
    assert list(result) == list(corners[0])


def test_weights_of_zero_alone_give_zeros():
    result = combine([model(1), model(2)], [0, 0])
    assert norm(result) == 0
    assert result["steps"].item() == 1


def test_a_combination_lets_gradients_through():
    a, b = {"w": torch.ones(2, requires_grad=True)}, {"w": torch.ones(2)}
    lerp(a, b, 0.25)["w"].sum().backward()
    assert a["w"].grad.tolist() == [0.75, 0.75]


@pytest.mark.parametrize(("corners", "weights"), [([], []), ([model()], [0.5, 0.5])])
def test_a_combination_needs_a_weight_for_each_corner(corners, weights):
    with pytest.raises(ValueError, match=r"corners and \d weights; expected one or more corners"):
        combine(corners, weights)


def test_a_step_added_to_its_start_gives_its_end():
    a, b = model(1, torch.float64), model(2, torch.float64)
    end = combine([b, subtract(a, b)], [1, 1])
    torch.testing.assert_close(end["weight"], a["weight"])


def test_scaling_by_zero_removes_infinities():
    assert scale({"w": torch.tensor([torch.inf])}, 0)["w"].tolist() == [0]


def test_sums_are_kept_in_float64():
    many = {"w": torch.full((100_000,), 0.1, dtype=torch.float16), "steps": torch.tensor(9)}
    value = float(torch.tensor(0.1, dtype=torch.float16))
    assert dot(many, many) == pytest.approx(100_000 * value**2, rel=1e-12)
    assert norm(many) == pytest.approx(100_000**0.5 * value, rel=1e-12)


def test_a_distance_is_not_rounded_to_half_precision():
    a = {"w": torch.tensor([2048.0], dtype=torch.float16)}
    b = {"w": torch.tensor([1.0 / 1024], dtype=torch.float16)}
    assert distance(a, b) == 2048 - 1 / 1024


def test_distance_agrees_with_dot():
    a, b = model(1), model(2)
    assert distance(a, b) ** 2 == pytest.approx(dot(a, a) - 2 * dot(a, b) + dot(b, b))


def test_names_only_the_floating_tensors():
    assert floating(model()) == ["weight", "bias"]


def test_names_in_another_order_are_one_architecture():
    a = model()
    check_same_architecture(a, dict(reversed(a.items())))


def test_names_a_missing_tensor():
    a, b = model(), model()
    del b["bias"]
    with pytest.raises(ArchitectureMismatchError, match=r"model B lacks 'bias'.*Choose two"):
        check_same_architecture(a, b)


def test_names_an_extra_tensor():
    b = model() | {"head.weight": torch.ones(2)}
    with pytest.raises(ArchitectureMismatchError, match=r"model A lacks, 'head.weight'"):
        check_same_architecture(model(), b)


def test_names_the_first_five_and_counts_the_rest():
    a = {f"layer{k}": torch.ones(1) for k in range(12)}
    with pytest.raises(ArchitectureMismatchError, match=r"'layer0'.*'layer4' and 7 more"):
        check_same_architecture(a, {})


def test_names_both_shapes():
    b = model() | {"weight": torch.ones(3, 5)}
    match = r"'weight' is \[3, 4\] in model A and \[3, 5\] in model B"
    with pytest.raises(ArchitectureMismatchError, match=match):
        check_same_architecture(model(), b)


def test_names_both_dtypes_if_asked():
    b = model() | {"bias": torch.ones(3).half()}
    match = "'bias' is torch.float32 in model A and torch.float16 in model B"
    with pytest.raises(ArchitectureMismatchError, match=match):
        check_same_architecture(model(), b)
    check_same_architecture(model(), b, dtype=False)


@pytest.mark.parametrize("use", [dot, distance, subtract, lambda a, b: lerp(a, b, 0.5)])
def test_arithmetic_on_two_architectures_names_the_layer(use):
    with pytest.raises(ArchitectureMismatchError, match="'weight'"):
        use(model(), model() | {"weight": torch.ones(4, 4)})
