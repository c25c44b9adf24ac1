"""Mismatch of gradients: Eq. 6 and 10, and exactness of gradient matching against joint models."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F

from merging.fusion import fuse, remove_task
from merging.fusion.explain.mismatch import decompose_error, gradient_mismatch, loss_gradient
from merging.models.architectures.registry import build_model
from merging.schema.errors import DataError, MergingError

TASKS = 3


def normal(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@dataclass
class Problem:
    """A base, models fine-tuned from it, the joint model, and all that is known of the losses."""

    base: torch.Tensor
    models: list[torch.Tensor]
    joint: torch.Tensor
    h0: torch.Tensor
    curvatures: list[torch.Tensor]
    gradients: list  # of each task, as functions

    def fused(self, rule, weights=None, **options):
        return fuse(
            rule,
            models=[{"w": theta} for theta in self.models],
            base={"w": self.base},
            weights=weights,
            fishers=[{"w": c} for c in self.curvatures],
            base_fisher={"w": self.h0},
            options=options or None,
        )["w"]

    def decomposed(self, curvatures=None, weights=None, delta=0.0):
        return decompose_error(
            base={"w": self.base},
            models=[{"w": theta} for theta in self.models],
            joint={"w": self.joint},
            base_curvature={"w": self.h0},
            at_joint=[{"w": g(self.joint)} for g in self.gradients],
            at_models=[
                {"w": g(theta)} for g, theta in zip(self.gradients, self.models, strict=True)
            ],
            weights=weights,
            curvatures=None if curvatures is None else [{"w": c} for c in curvatures],
            delta=delta,
        )["w"]


def quadratics(weights=(1.0, 0.5, 2.0)) -> Problem:
    """Quadratic losses with diagonal curvature, whose minima are known in closed form."""
    centres = [normal(k, 20) for k in range(TASKS + 1)]
    h0, *curvatures = (normal(10 + k, 20).square() + 0.1 for k in range(TASKS + 1))
    base = centres[0]
    pairs = list(zip(curvatures, centres[1:], strict=True))
    models = [(d * c + h0 * base) / (d + h0) for d, c in pairs]
    pulled = sum(a * d * c for a, (d, c) in zip(weights, pairs, strict=True))
    total = sum(a * d for a, d in zip(weights, curvatures, strict=True))
    joint = (pulled + h0 * base) / (total + h0)
    gradients = [lambda theta, d=d, c=c: d * (theta - c) for d, c in pairs]
    return Problem(base, models, joint, h0, curvatures, gradients)


WEIGHTS = (1.0, 0.5, 2.0)


# Exactness


def test_gradient_matching_is_the_joint_model_of_quadratics():
    problem = quadratics()
    found = problem.fused("gradient_matching", WEIGHTS, delta=0.0)
    torch.testing.assert_close(found, problem.joint, atol=1e-12, rtol=0)
    assert (problem.fused("task_arithmetic", WEIGHTS) - problem.joint).norm() > 1


def test_the_error_of_task_arithmetic_on_quadratics_is_that_of_equation_10():
    problem = quadratics()
    error = problem.decomposed(weights=WEIGHTS)
    distance = float((problem.joint - problem.fused("task_arithmetic", WEIGHTS)).norm())
    assert error.measured == pytest.approx(distance, rel=1e-12)
    assert error.predicted == pytest.approx(distance, rel=1e-12)
    assert error.residual < 1e-12
    assert error.bound > error.measured


def test_what_gradient_matching_leaves_out_is_nothing_on_quadratics():
    problem = quadratics()
    error = problem.decomposed(problem.curvatures, WEIGHTS)
    assert max(error.measured, error.predicted, error.residual, error.bound) < 1e-12


def test_models_that_are_no_stationary_points_add_a_residual_within_the_bound():
    problem = quadratics()
    problem.models[0] = problem.models[0] + 0.3 * normal(40, 20)
    error = problem.decomposed(weights=WEIGHTS)
    distance = float((problem.joint - problem.fused("task_arithmetic", WEIGHTS)).norm())
    assert error.measured == pytest.approx(distance, rel=1e-12)
    assert error.residual > 0.1
    assert error.measured <= error.bound


def test_the_mean_of_two_ridge_models_is_off_by_the_mismatch_of_gradients():
    """Eq. 6: with the penalty of the identity, the error is the mismatch itself."""
    curvatures = [normal(k, 8).square() for k in (1, 2)]
    centres = [normal(k, 8) for k in (3, 4)]
    models = [d * c / (d + 1) for d, c in zip(curvatures, centres, strict=True)]
    joint = sum(d * c for d, c in zip(curvatures, centres, strict=True)) / 2
    joint /= sum(curvatures) / 2 + 1
    at = [
        [{"w": d * (theta - c)} for d, c, theta in zip(curvatures, centres, thetas, strict=True)]
        for thetas in ([joint, joint], models)
    ]
    found = gradient_mismatch(*at, weights=[0.5, 0.5])
    assert found.norm == pytest.approx(float((joint - sum(models) / 2).norm()), rel=1e-12)
    assert found.by_tensor == {"w": found.norm}


def ridge(parts, delta):
    """The solution of ridge regression on the examples of all parts."""
    x, y = (torch.cat(column) for column in zip(*parts, strict=True))
    return torch.linalg.solve(x.T @ x + delta * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)


def orthogonal_regression():
    """Linear regressions whose features are uncorrelated, so that curvature *is* diagonal."""
    parts = []
    for k in range(TASKS + 1):
        q, _ = torch.linalg.qr(normal(k, 30, 6))
        x = q * (normal(20 + k, 6).abs() + 0.2)
        parts.append((x, x @ normal(30 + k, 6) + 0.1 * normal(50 + k, 30)))
    return parts


def test_gradient_matching_is_the_joint_solution_of_linear_regressions():
    parts, delta = orthogonal_regression(), 0.3
    problem = Problem(
        ridge(parts[:1], delta),
        [ridge([parts[0], part], delta) for part in parts[1:]],
        ridge(parts, delta),
        parts[0][0].square().sum(0),
        [x.square().sum(0) for x, _ in parts[1:]],
        [],
    )
    found = problem.fused("gradient_matching", delta=delta)
    torch.testing.assert_close(found, problem.joint, atol=1e-12, rtol=0)
    for rule in ("task_arithmetic", "average", "fisher"):
        assert (problem.fused(rule) - problem.joint).norm() > 0.1


def test_removing_a_task_of_a_linear_regression_is_training_without_it():
    parts, delta = orthogonal_regression(), 0.3
    base = ridge(parts, delta)
    h0 = sum(x.square().sum(0) for x, _ in parts)
    x, y = parts[1]
    # Fine-tuned on the task once more, with the penalty of Eq. 8.
    model = (x.T @ y + (h0 + delta) * base) / (x.square().sum(0) + h0 + delta)
    found, clamped = remove_task(
        {"w": base}, {"w": model}, {"w": h0}, {"w": x.square().sum(0)}, delta=delta
    )
    expected = ridge([parts[0], *parts[2:]], delta)
    torch.testing.assert_close(found["w"], expected, atol=1e-12, rtol=0)
    assert clamped == 0


def logistic(parts, delta):
    """The minimum of logistic regression with a ridge penalty, by Newton's method."""
    x, y = (torch.cat(column) for column in zip(*parts, strict=True))
    theta = torch.zeros(x.shape[1], dtype=x.dtype)
    for _ in range(30):
        p = torch.sigmoid(x @ theta)
        gradient = x.T @ (p - y) + delta * theta
        hessian = x.T @ (x * (p * (1 - p))[:, None])
        step = torch.linalg.solve(hessian + delta * torch.eye(len(theta), dtype=x.dtype), gradient)
        theta = theta - step
    assert float(step.norm()) < 1e-10
    return theta


@pytest.mark.parametrize("seed", range(3))
def test_gradient_matching_is_much_nearer_than_task_arithmetic_on_logistic_regressions(seed):
    parts, delta = [], 0.3
    for k in range(TASKS + 1):
        x = normal(100 * seed + k, 300, 5)
        truth = normal(100 * seed + 50, 5) + 0.7 * normal(100 * seed + 60 + k, 5)
        parts.append((x, (x @ truth + normal(100 * seed + 70 + k, 300) > 0).double()))

    def curvature(x, theta):
        p = torch.sigmoid(x @ theta)
        return ((p * (1 - p))[:, None] * x.square()).sum(0)

    base = logistic(parts[:1], delta)
    models = [logistic([parts[0], part], delta) for part in parts[1:]]
    problem = Problem(
        base,
        models,
        logistic(parts, delta),
        curvature(parts[0][0], base),
        [curvature(x, theta) for (x, _), theta in zip(parts[1:], models, strict=True)],
        [],
    )
    distance = {
        rule: float((problem.fused(rule) - problem.joint).norm())
        for rule in ("gradient_matching", "task_arithmetic", "average")
    }
    assert distance["gradient_matching"] < distance["task_arithmetic"] / 8
    assert distance["gradient_matching"] < distance["average"]


# Gradients of networks


CONFIG = {"architecture": "mlp", "widths": [5, 7, 3]}


def test_the_gradient_is_that_of_autograd_on_the_sum_of_the_losses():
    model = build_model(CONFIG, seed=1).train()
    x, y = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3
    found = loss_gradient(model, model.state_dict(), [(x[:30], y[:30]), (x[30:], y[30:])])
    assert model.training
    (40 * F.cross_entropy(model(x), y)).backward()
    for name, value in model.named_parameters():
        torch.testing.assert_close(found[name], value.grad, atol=1e-4, rtol=1e-4)


def test_gradients_leave_the_model_and_the_parameters_as_they_are():
    model = build_model(CONFIG, seed=1)
    params = {name: value + 1 for name, value in model.state_dict().items()}
    before = {name: value.clone() for name, value in params.items()}
    own = {name: value.clone() for name, value in model.state_dict().items()}
    loss_gradient(model, params, [(torch.ones(2, 5), torch.tensor([0, 1]))])
    assert all(torch.equal(params[name], before[name]) for name in params)
    assert all(torch.equal(model.state_dict()[name], own[name]) for name in own)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_gradients_without_examples_are_refused():
    model = build_model(CONFIG)
    with pytest.raises(DataError, match=r"gradients need examples"):
        loss_gradient(model, model.state_dict(), [])


def test_a_weight_is_needed_for_every_task():
    one = {"w": torch.ones(2)}
    with pytest.raises(MergingError, match=r"got 2 and 1 state dicts and 2 weights"):
        gradient_mismatch([one, one], [one])
