"""The part of the experiment where the theory holds exactly: softmax regression, fully trained.

All models are minima of the convex losses of Eq. 7 to 9 (Daheim et al. 2024), diagonal curvature in
the penalties included, so that Eq. 10 leaves no residual. There are no seeds in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from merging.files.checkpoints.lazy_params import Params
from merging.files.data.batches import Batches
from merging.files.data.bundled import load_dataset
from merging.fusion import fuse
from merging.fusion.explain.mismatch import (
    TensorError,
    decompose_error,
    gradient_mismatch,
    loss_gradient,
)
from merging.models.architectures.registry import build_model
from merging.models.state_dict import combine, norm, scale, subtract
from merging.models.zoo.families import FamilyRecipe

PRIOR = 10.0
_TOLERANCE = 1e-5  # of the gradient, in units where the penalty is round


@dataclass(frozen=True)
class Convex:
    """What came out for one family's data.

    Attributes:
        rules: By rule: distance to the joint model, mismatch of gradients, mean test accuracy.
        errors: By rule and tensor.
        remainders: Length of the change of gradients from each θ_t to the joint model, summed over
            tasks; of what is left of it after Taylor's expansion (Eq. 11) with the diagonal of
            the curvature; and with all of it.
    """

    rules: dict[str, tuple[float, float, float]]
    errors: dict[str, dict[str, TensorError]]
    remainders: tuple[float, float, float]


def measure_convex(recipe: FamilyRecipe) -> Convex:
    """Train base, models and joint model to their minima, and merge."""
    net = build_model({"architecture": "mlp", "widths": [784, 10]}).double()
    sets = [load_dataset(name) for name in (recipe.data, *recipe.tasks)]
    first, *tasks = [_double(data.train) for data in sets]
    tests = [_double(data.test) for data in sets]
    zero = {name: torch.zeros_like(value) for name, value in net.state_dict().items()}

    def fitted(start: Params, penalty: Params, *parts: Batches) -> Params:
        return _minimise(lambda own: sum(_loss(net, own, part) for part in parts), start, penalty)

    ridge = {name: torch.full_like(value, PRIOR) for name, value in zero.items()}
    base = fitted(zero, ridge, first)
    curved = _curvature(net, base, first)
    h0 = {name: value + PRIOR for name, value in curved.items()}
    models = [fitted(base, h0, task) for task in tasks]
    joint = fitted(base, h0, *tasks)
    curvatures = [_curvature(net, own, task) for own, task in zip(models, tasks, strict=True)]

    def fused(rule: str, weight: float = 1.0) -> Params:
        return fuse(
            rule, models=models, base=base, weights=[weight] * len(models), fishers=curvatures,
            base_fisher=curved, options={"delta": PRIOR} if rule == "gradient_matching" else None,
        )  # fmt: skip

    merged = {
        "Joint model": joint,
        "Base": base,
        "Weighted mean": fused("average"),
        "Task arithmetic, α = 0.3": fused("task_arithmetic", 0.3),
        "Task arithmetic, α = 1": fused("task_arithmetic"),
        "Fisher averaging": fused("fisher"),
        "Gradient matching, α = 1": fused("gradient_matching"),
    }
    at_models = [loss_gradient(net, own, task) for own, task in zip(models, tasks, strict=True)]

    def row(params: Params) -> tuple[float, float, float]:
        at_merged = [loss_gradient(net, params, task) for task in tasks]
        accuracy = float(np.mean([_accuracy(net, params, test) for test in tests]))
        distance = norm(subtract(joint, params))
        return distance, gradient_mismatch(at_merged, at_models).norm, accuracy

    at_joint = [loss_gradient(net, joint, task) for task in tasks]
    errors = {
        title: decompose_error(
            base=base, models=models, joint=joint, base_curvature=curved, at_joint=at_joint,
            at_models=at_models, curvatures=given, delta=PRIOR,
        )
        for title, given in (("Task arithmetic", None), ("Gradient matching", curvatures))
    }  # fmt: skip
    changes = [subtract(at, own) for at, own in zip(at_joint, at_models, strict=True)]
    ways = [subtract(joint, own) for own in models]
    diagonal = [{n: c[n] * w[n] for n in w} for c, w in zip(curvatures, ways, strict=True)]
    full = [
        _times_hessian(net, own, task, way)
        for own, task, way in zip(models, tasks, ways, strict=True)
    ]
    lefts = [_left(changes, [scale(way, 0.0) for way in ways]), _left(changes, diagonal)]
    return Convex(
        {title: row(params) for title, params in merged.items()},
        errors,
        (*lefts, _left(changes, full)),
    )


def _left(changes: list[Params], expected: list[Params]) -> float:
    """Return the length of the sum over tasks of whatever was not expected."""
    ones = [1.0] * len(changes)
    return norm(subtract(combine(changes, ones), combine(expected, ones)))


def _times_hessian(net: torch.nn.Module, params: Params, data: Batches, way: Params) -> Params:
    """Return the Hessian of the summed loss times a vector."""
    gradient = torch.func.grad(lambda own: _loss(net, own, data))
    found: Params = torch.func.jvp(gradient, (params,), (way,))[1]
    return found


def _double(split: Batches) -> Batches:
    return Batches(
        inputs=split.inputs.double(),
        targets=split.targets,
        batch_size=split.batch_size,
        name=split.name,
    )


def _loss(net: torch.nn.Module, params: Params, data: Batches) -> Tensor:
    outputs = functional_call(net, params, (data.inputs,))
    return F.cross_entropy(outputs, data.targets, reduction="sum")


def _minimise(loss: Callable[[Params], Tensor], start: Params, penalty: Params) -> Params:
    """Minimise a loss plus half the squared distance from the start, each entry weighed."""
    # In units where the penalty is round, which is what makes L-BFGS quick.
    roots = {name: value.sqrt() for name, value in penalty.items()}
    steps = {name: torch.zeros_like(value).requires_grad_() for name, value in start.items()}
    optimiser = torch.optim.LBFGS(
        list(steps.values()), max_iter=2000, max_eval=4000, tolerance_grad=_TOLERANCE,
        tolerance_change=0.0, history_size=50, line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        optimiser.zero_grad()
        own = {name: start[name] + steps[name] / roots[name] for name in start}
        total = loss(own) + sum(step.square().sum() for step in steps.values()) / 2
        total.backward()
        return total

    optimiser.step(closure)
    return {name: (start[name] + steps[name] / roots[name]).detach() for name in start}


def _curvature(net: torch.nn.Module, params: Params, data: Batches) -> Params:
    """Return the exact diagonal of the summed loss's Hessian, here also the Fisher's."""
    with torch.no_grad():
        p = functional_call(net, params, (data.inputs,)).softmax(1)
    spread = p * (1 - p)
    squares = data.inputs.flatten(1).square()
    return {"layers.0.weight": spread.T @ squares, "layers.0.bias": spread.sum(0)}


def _accuracy(net: torch.nn.Module, params: Params, data: Batches) -> float:
    with torch.no_grad():
        answers = functional_call(net, params, (data.inputs,)).argmax(1)
    return float((answers == data.targets).double().mean())
