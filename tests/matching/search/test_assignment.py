import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from merging.matching.search.assignment import AssignmentSeries, solve_assignment
from tests.cases import few
from tests.oracles import best_assignment

squares = st.integers(1, 6).flatmap(
    lambda n: hnp.arrays("float64", (n, n), elements=st.integers(-9, 9).map(float))
)


def value(similarity, columns):
    return math.fsum(float(similarity[row, column]) for row, column in enumerate(columns.tolist()))


@few
@given(squares)
def test_no_pairing_is_better(square):
    similarity = torch.from_numpy(square)
    columns = solve_assignment(similarity)
    assert sorted(columns.tolist()) == list(range(len(similarity)))
    assert value(similarity, columns) == best_assignment(similarity)


def test_rows_are_units_of_a_and_columns_units_of_b():
    similarity = torch.tensor([[0.0, 9.0, 0.0], [0.0, 0.0, 9.0], [9.0, 0.0, 0.0]])
    assert solve_assignment(similarity).tolist() == [1, 2, 0]


def test_the_sum_is_made_large_and_not_small():
    assert solve_assignment(torch.eye(4)).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int64])
def test_any_real_type_is_solved_without_being_changed(dtype):
    similarity = torch.tensor([[1, 9], [8, 3]]).to(dtype)
    before = similarity.clone()
    columns = solve_assignment(similarity)
    assert columns.tolist() == [1, 0]
    assert columns.dtype == torch.int64
    assert torch.equal(similarity, before)


def test_similarities_that_need_gradients_are_solved():
    assert solve_assignment(torch.eye(3, requires_grad=True)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("shape", [(2, 3), (4,), (2, 2, 2)])
def test_what_is_not_square_is_refused(shape):
    with pytest.raises(ValueError, match="a similarity must be square, not"):
        solve_assignment(torch.zeros(shape))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(bad):
    with pytest.raises(ValueError, match="must not hold NaN or infinity"):
        solve_assignment(torch.tensor([[0.0, bad], [1.0, 2.0]]))


def test_solving_again_and_again_finds_pairings_as_good_as_solving_once():
    generator = torch.Generator().manual_seed(0)
    series, current = AssignmentSeries(), torch.randperm(12, generator=generator)
    similarity = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    for _ in range(20):
        similarity = similarity + 0.2 * torch.randn(12, 12, generator=generator)
        current = series.solve(similarity, current)
        assert sorted(current.tolist()) == list(range(12))
        best = value(similarity, solve_assignment(similarity))
        assert value(similarity, current) == pytest.approx(best, rel=1e-12)


def test_a_series_refuses_what_is_not_finite():
    with pytest.raises(ValueError, match="must not hold NaN or infinity"):
        AssignmentSeries().solve(torch.full((2, 2), math.nan), torch.arange(2))
