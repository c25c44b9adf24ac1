"""Gradient matching with curvature beyond the diagonal (Daheim et al. 2024, Eq. 12)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from merging.files.checkpoints.lazy_params import Params, StateDict
from merging.fusion.curvature.operators import Operator
from merging.fusion.fuse import fuse
from merging.fusion.problem import FusionProblem
from merging.schema.errors import MergingError
from merging.schema.progress import Progress, ignore

Vector = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Matched:
    """A model that was merged by solving a system of equations.

    Attributes:
        params: State dict.
        steps: Of conjugate gradients.
        residual: What is left of the right-hand side, as a share of its length.
        converged: Whether that is as little as was asked for.
    """

    params: Params
    steps: int
    residual: float
    converged: bool


def match_gradients(
    models: Sequence[StateDict],
    base: StateDict,
    curvatures: Sequence[Operator],
    base_curvature: Operator,
    *,
    weights: Sequence[float] | None = None,
    delta: float = 1.0,
    tolerance: float = 1e-6,
    most_steps: int = 300,
    on_progress: Progress | None = None,
) -> Matched:
    """Solve Eq. 12, `H (theta - base) = sum_t a_t (H_0 + H_t) (theta_t - base)`, for any curvature.

    `H = H_0 + sum_t a_t H_t`, and `delta` is in `H_0`. Sums of Kronecker products are none, so the
    system is solved by conjugate gradients in float64, from task arithmetic's model: directions in
    which no curvature is known stay as they are there. The fewer steps are taken, the more
    directions count as such.

    Args:
        models: State dicts.
        base: What they were fine-tuned from.
        curvatures: For each model, what its curvature makes of a step, on the scale of the sum
            (`scaled_curvature(kronecker_curvature(…), size)`).
        base_curvature: The base's curvature.
        weights: Factors of task vectors; by default 1 each.
        delta: Precision of the prior. With less than about 1e-6 of the largest curvature, more
            steps are needed than are worth it.
        tolerance: Length of the residual, as a share of the right-hand side's, that is enough.
        most_steps: Steps of conjugate gradients at most.
        on_progress: Called with `(done, total, note)` after every step; may raise `StoppedError`.

    Returns:
        The model, in the types of the first one. Running statistics are the models' mean, and
        tensors that are not floating the first model's.

    Raises:
        MergingError: If models do not fit, numbers differ, or the curvatures do not add up to a
            positive one.
        StoppedError: If `on_progress` raises it.

    Example:
        >>> from merging.fusion.curvature.operators import diagonal_curvature
        >>> one, two = ({"w": torch.tensor([x])} for x in (1.0, 3.0))
        >>> flat, steep = (diagonal_curvature({"w": torch.tensor([x])}) for x in (0.0, 4.0))
        >>> match_gradients([one, two], {"w": torch.zeros(1)}, [flat, steep], flat).params
        {'w': tensor([3.2000])}
    """
    if len(curvatures) != len(models):
        raise MergingError(f"{len(models)} models have {len(curvatures)} curvatures; give one each")
    # Checks that models fit, and gives whatever is not solved for.
    rest = fuse("task_arithmetic", models=models, base=base, weights=weights)
    names = _trained(models[0])
    factors = [1.0] * len(models) if weights is None else [float(w) for w in weights]
    origin = {name: base[name].double() for name in names}
    ways = [{n: model[n].double() - origin[n] for n in names} for model in models]

    def prior(step: Vector) -> Vector:
        return _added(_product(base_curvature, step), step, delta)

    def whole(step: Vector) -> Vector:
        total = prior(step)
        for factor, curvature in zip(factors, curvatures, strict=True):
            total = _added(total, _product(curvature, step), factor)
        return total

    wanted = start = {name: torch.zeros_like(value) for name, value in origin.items()}
    for factor, curvature, way in zip(factors, curvatures, ways, strict=True):
        own = _added(prior(way), _product(curvature, way), 1.0)
        wanted, start = _added(wanted, own, factor), _added(start, way, factor)
    found, steps, residual = _solved(
        whole, wanted, start, tolerance, most_steps, on_progress or ignore
    )
    merged = {n: (origin[n] + found[n]).to(models[0][n].dtype) for n in names}
    return Matched(
        params={**rest, **merged}, steps=steps, residual=residual, converged=residual <= tolerance
    )


def _trained(model: StateDict) -> list[str]:
    """Return the names of floating tensors that are not running statistics."""
    problem = FusionProblem(models=[model])
    return [n for n in model if problem.is_floating(n) and n not in problem.statistics]


def _product(curvature: Operator, step: Vector) -> Vector:
    """Return what a curvature makes of a step: nothing, where it does not know a tensor."""
    found = curvature(step)
    return {n: found[n] if n in found else torch.zeros_like(value) for n, value in step.items()}


def _added(one: Vector, other: Vector, factor: float) -> Vector:
    return {name: value + factor * other[name] for name, value in one.items()}


def _dot(one: Vector, other: Vector) -> float:
    return sum(float((value * other[name]).sum()) for name, value in one.items())


def _solved(
    times: Callable[[Vector], Vector],
    wanted: Vector,
    start: Vector,
    tolerance: float,
    most_steps: int,
    tell: Progress,
) -> tuple[Vector, int, float]:
    """Solve by conjugate gradients; return the solution, the steps, and the residual's share.

    Raises:
        MergingError: If the curvature is not positive.
    """
    found, left = start, _added(wanted, times(start), -1.0)
    way, square, scale = left, _dot(left, left), max(_dot(wanted, wanted), 1e-300)
    for step in range(most_steps):
        share = (square / scale) ** 0.5
        if share <= tolerance:
            return found, step, share
        product = times(way)
        steepness = _dot(way, product)
        if not steepness > 0:
            raise MergingError(
                "the curvatures do not add up to a positive one; use positive weights and a "
                "larger delta"
            )
        length = square / steepness
        found, left = _added(found, way, length), _added(left, product, -length)
        before, square = square, _dot(left, left)
        way = _added(left, way, square / before)
        tell(step + 1, most_steps, f"residual {(square / scale) ** 0.5:.1e}")
    return found, most_steps, (square / scale) ** 0.5
