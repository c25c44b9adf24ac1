"""Statistics of hidden units of a merged model: RESET, REPAIR and RESCALE.

Interpolated units vary less than their parents' (variance collapse; Jordan et al. 2023). RESET
re-estimates the running statistics of BatchNorm on examples. REPAIR gives every unit the mean and
deviation that its parents have in the mean; RESCALE the deviation only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from merging.files.checkpoints.lazy_params import Params
from merging.files.data.batches import BatchesLike
from merging.landscape.evaluate.evaluation import Prepare
from merging.landscape.statistics.unit_moments import ChannelMoments, Unit, find_units, walk
from merging.models.graph.export import trace
from merging.models.graph.graph import Graph, Visit
from merging.models.state_dict import lerp
from merging.schema.cards.landscape import Correction, Statistics
from merging.schema.errors import DataError, MergingError, UnknownNameError

Goals = dict[fx.Node, tuple[Tensor, Tensor]]
KINDS = ("reset", "repair", "rescale")

_LEAST_DEVIATION = 1e-6


def has_batch_norm(model: nn.Module, batches: BatchesLike) -> bool:
    """Return whether the model keeps running statistics that RESET can re-estimate."""
    return any(unit.mean is not None for unit in find_units(trace(model, (_one_batch(batches),))))


def reset(model: nn.Module, params: Mapping[str, Tensor], batches: BatchesLike) -> Params:
    """Re-estimate the running statistics of BatchNorm on examples.

    Every norm sees what the norms before it, already re-estimated, let through. The statistics
    are those of all examples together, so the estimate does not depend on their order.

    Args:
        model: The architecture.
        params: State dict; left as it is.
        batches: Training examples.

    Returns:
        A new state dict.

    Raises:
        MergingError: If the model has no running statistics.
        DataError: If there are no examples.
    """
    x = _one_batch(batches)
    graph = trace(model, (x,))
    units = [unit for unit in find_units(graph) if unit.mean is not None]
    if not units:
        raise MergingError(
            f"{type(model).__name__} keeps no running statistics, so there is nothing to RESET; "
            "use REPAIR or RESCALE"
        )
    result: Params = dict(params)
    walk(graph, units, params, x, before=_renewing(result))
    return result


def repair(
    model: nn.Module,
    params_a: Mapping[str, Tensor],
    params_b: Mapping[str, Tensor],
    lam: float,
    batches: BatchesLike,
    kind: Correction = "repair",
) -> Params:
    """Interpolate two (aligned) models and correct the statistics of the hidden units.

    Args:
        model: The architecture.
        params_a: State dict of model A.
        params_b: State dict of model B, aligned.
        lam: Position on the line; 0 and 1 give the models themselves.
        batches: Training examples to take the statistics on.
        kind: `"reset"`, `"repair"` or `"rescale"`.

    Returns:
        A new state dict: the corrections are folded into weights, biases and running statistics.

    Raises:
        UnknownNameError: If `kind` is none of the three.
        MergingError: If the model has nothing that could be corrected.
        DataError: If there are no examples.
    """
    merged = lerp(params_a, params_b, lam)
    if kind not in KINDS:
        raise UnknownNameError(f"unknown correction {kind!r}; choose from {', '.join(KINDS)}")
    if lam in (0.0, 1.0):
        return merged
    if kind == "reset":
        return reset(model, merged, batches)
    goals_a = unit_statistics(model, params_a, batches)
    goals_b = unit_statistics(model, params_b, batches)
    goals = _mixed_goals(goals_a, goals_b, lam)
    return corrected(model, merged, goals, batches, shift=kind == "repair")


def corrected(
    model: nn.Module,
    params: Mapping[str, Tensor],
    goals: Goals,
    batches: BatchesLike,
    *,
    shift: bool,
) -> Params:
    """Give every unit its goal's deviation, and its mean if `shift`, from the first layer on.

    Args:
        model: The architecture.
        params: State dict of the merged model.
        goals: Mean and standard deviation of every channel, by operator.
        batches: Training examples.
        shift: Whether means are corrected too (REPAIR) or only deviations (RESCALE).

    Returns:
        A new state dict.

    Raises:
        MergingError: If the model has nothing that could be corrected.
        DataError: If there are no examples.
    """
    x = _one_batch(batches)
    graph = trace(model, (x,))
    units = [unit for unit in find_units(graph) if unit.weight is not None]
    if not units:
        raise MergingError(f"{type(model).__name__} has no hidden units that could be corrected")
    result: Params = dict(params)

    def correct(unit: Unit, found: ChannelMoments) -> tuple[Tensor, Tensor]:
        gain, offset = _correction(found, unit, goals[unit.node], shift=shift)
        _fold(result, unit, gain, offset)
        return gain, offset

    walk(graph, units, params, x, before=_renewing(result), after=correct)
    return result


def unit_statistics(model: nn.Module, params: Mapping[str, Tensor], batches: BatchesLike) -> Goals:
    """Return mean and standard deviation of every channel, for all operators that can be corrected.

    Raises:
        DataError: If there are no examples.
    """
    x = _one_batch(batches)
    graph = trace(model, (x,))
    found: Goals = {}

    def measure(unit: Unit, seen: ChannelMoments) -> None:
        found[unit.node] = seen.mean, seen.deviation

    walk(graph, [unit for unit in find_units(graph) if unit.weight], params, x, after=measure)
    return found


def with_batch_statistics(graph: Graph, params: Mapping[str, Tensor], x: Tensor) -> Visit:
    """Return a visit that normalises by the statistics of the batch at hand, as in training."""
    by_node = {unit.node: unit for unit in find_units(graph) if unit.mean is not None}
    read = {unit.reads for unit in by_node.values()}
    kept: dict[object, Tensor] = dict.fromkeys(graph.inputs, x)

    def visit(node: fx.Node, value: Tensor) -> Tensor:
        if node in by_node:
            unit = by_node[node]
            weight, bias = (params[name] if name else None for name in (unit.weight, unit.bias))
            eps = float(node.args[7])  # type: ignore[arg-type]
            value = F.batch_norm(kept[unit.reads], None, None, weight, bias, training=True, eps=eps)
        if node in read:
            kept[node] = value
        return value

    return visit


def line_policy(
    kind: Statistics,
    model: nn.Module,
    params_a: Mapping[str, Tensor],
    params_b: Mapping[str, Tensor],
    batches: BatchesLike,
) -> Prepare | None:
    """Return what to do with the parameters of every point between two models before evaluation.

    The models themselves are left as they are, so that the ends of a curve stay their own.

    Args:
        kind: `"interpolated"` does nothing; the others are RESET, REPAIR and RESCALE.
        model: The architecture.
        params_a: State dict of model A.
        params_b: State dict of model B.
        batches: Training examples for the statistics.

    Returns:
        A function for `prepare=`, or None where nothing is to be done.

    Raises:
        UnknownNameError: If `kind` is none of the four.
        DataError: If there are no examples.
    """
    if kind not in ("repair", "rescale"):
        return plane_policy(kind, model, batches)
    goals_a = unit_statistics(model, params_a, batches)
    goals_b = unit_statistics(model, params_b, batches)

    def prepare(params: Params, point: Sequence[float]) -> Params:
        if _is_corner(point):
            return params
        goals = _mixed_goals(goals_a, goals_b, point[1])
        return corrected(model, params, goals, batches, shift=kind == "repair")

    return prepare


def plane_policy(kind: Statistics, model: nn.Module, batches: BatchesLike) -> Prepare | None:
    """Return what to do as `line_policy` does, for points that are not between two models.

    Args:
        kind: `"interpolated"` or `"reset"`.
        model: The architecture.
        batches: Training examples for the statistics.

    Returns:
        A function for `prepare=`, or None where nothing is to be done.

    Raises:
        UnknownNameError: If `kind` is neither.
    """
    if kind == "interpolated":
        return None
    if kind == "reset":
        return lambda params, point: params if _is_corner(point) else reset(model, params, batches)
    raise UnknownNameError(
        f"unknown statistics {kind!r}; choose from 'interpolated', 'reset' (and on a line between "
        "two models 'repair', 'rescale')"
    )


def _is_corner(point: Sequence[float]) -> bool:
    return sorted(point)[-1] == 1 and sum(w != 0 for w in point) == 1


def _mixed_goals(goals_a: Goals, goals_b: Goals, lam: float) -> Goals:
    return {
        node: (
            (1 - lam) * goals_a[node][0] + lam * goals_b[node][0],
            (1 - lam) * goals_a[node][1] + lam * goals_b[node][1],
        )
        for node in goals_a
    }


def _one_batch(batches: BatchesLike) -> Tensor:
    inputs = [x for x, _ in batches]
    if not inputs or not sum(len(x) for x in inputs):
        raise DataError("statistics need examples, and none were given; give training batches")
    return torch.cat(inputs) if len(inputs) > 1 else inputs[0]


def _renewing(result: Params) -> Callable[[Unit, ChannelMoments], Params]:
    """Return a `before` of the walk that notes in `result` the statistics that norms then use."""

    def renew(unit: Unit, found: ChannelMoments) -> Params:
        statistics = {unit.mean: found.mean, unit.variance: found.unbiased_variance}
        renewed = {name: value.to(result[name].dtype) for name, value in statistics.items() if name}
        result.update(renewed)
        return renewed

    return renew


def _correction(
    found: ChannelMoments, unit: Unit, goal: tuple[Tensor, Tensor], *, shift: bool
) -> tuple[Tensor, Tensor]:
    """Gain and offset that give a unit the goal; one that says nothing keeps its gain."""
    mean, deviation = found.mean, found.deviation
    alive = deviation > _LEAST_DEVIATION
    gain = torch.where(alive, goal[1] / deviation.clamp_min(_LEAST_DEVIATION), 1.0)
    if shift and unit.bias is not None:
        return gain, goal[0] - gain * mean
    return gain, torch.zeros_like(gain)


def _fold(result: Params, unit: Unit, gain: Tensor, offset: Tensor) -> None:
    """Put a correction of the outputs into the weights and biases that made them."""
    weight = result[str(unit.weight)]
    result[str(unit.weight)] = weight * gain.to(weight.dtype).view(-1, *[1] * (weight.dim() - 1))
    if unit.bias is not None:
        bias = result[unit.bias]
        result[unit.bias] = (bias.double() * gain + offset).to(bias.dtype)
