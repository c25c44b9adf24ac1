"""Task vectors side by side, and how the implied weights of gradient matching are distributed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from merging.fusion.explain.task_vectors import (
    compare_by_tensor,
    compare_task_vectors,
    weight_histogram,
)
from merging.fusion.problem import FusionProblem
from merging.schema.errors import MergingError

BASE = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0]]), "steps": torch.tensor(4)}


def moved(*steps: float) -> dict[str, torch.Tensor]:
    a, b = torch.tensor(steps[:2]), torch.tensor([[steps[2]]])
    return {"a": BASE["a"] + a, "b": BASE["b"] + b, "steps": torch.tensor(9)}


MODELS = [moved(3, 0, 4), moved(-1, 2, 0), moved(0, 0, 0)]


def test_lengths_cosines_and_conflicts_by_hand():
    found = compare_task_vectors(BASE, MODELS)
    np.testing.assert_allclose(found.norms, [5, 5**0.5, 0], rtol=1e-6)
    assert found.cosines[0, 1] == pytest.approx(-3 / (5 * 5**0.5))
    assert np.isnan(found.cosines[0, 2])
    assert found.conflicts[0, 1] == 1  # only the first entry was changed by both
    assert found.conflicts[0, 0] == 0
    assert np.isnan(found.conflicts[0, 2])
    assert found.any_conflict == pytest.approx(1 / 3)


def test_tensors_add_up_to_the_whole():
    whole, parts = compare_task_vectors(BASE, MODELS), compare_by_tensor(BASE, MODELS)
    assert list(parts) == ["a", "b"]
    total = sum(part.norms**2 for part in parts.values())
    np.testing.assert_allclose(total, whole.norms**2, rtol=1e-12)
    assert parts["a"].any_conflict == pytest.approx(1 / 2)
    assert parts["b"].any_conflict == 0


def test_there_is_something_to_compare():
    with pytest.raises(MergingError, match=r"no models to compare"):
        compare_task_vectors(BASE, [])


def problem(h0: float, curvatures: list[float], weights: list[float]) -> FusionProblem:
    def filled(value: float) -> dict[str, torch.Tensor]:
        return {name: torch.full_like(BASE[name], value) for name in ("a", "b")}

    return FusionProblem(
        models=MODELS[: len(weights)],
        base=BASE,
        weights=weights,
        fishers=[filled(c) for c in curvatures],
        base_fisher=filled(h0),
    )


def test_flat_tasks_have_the_weights_of_task_arithmetic():
    found = weight_histogram(problem(1.0, [0.0, 0.0], [0.5, 0.25]), bins=4)
    np.testing.assert_allclose(found.means, [0.5, 0.25])
    np.testing.assert_allclose(found.quartiles, [[0.5] * 3, [0.25] * 3])
    assert found.counts.tolist() == [[0, 0, 3, 0], [0, 3, 0, 0]]
    np.testing.assert_allclose(found.edges, [0, 0.25, 0.5, 0.75, 1])


def test_steep_tasks_share_the_weight_as_in_fisher_averaging():
    found = weight_histogram(problem(0.0, [3.0, 1.0], [1.0, 1.0]))
    np.testing.assert_allclose(found.means, [0.75, 0.25], rtol=1e-6)


def test_a_histogram_without_curvature_is_refused():
    with pytest.raises(MergingError, match=r"need `fishers`"):
        weight_histogram(FusionProblem(models=MODELS, base=BASE, weights=[1.0] * 3))
