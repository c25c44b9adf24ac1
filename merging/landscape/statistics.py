"""Statistics of hidden units of a merged model: RESET, REPAIR and RESCALE.

Interpolated units vary less than their parents' (variance collapse; Jordan et al. 2023). RESET
re-estimates the running statistics of BatchNorm on examples. REPAIR gives every unit the mean and
deviation that its parents have in the mean; RESCALE the deviation only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from merging.errors import DataError, MergingError, UnknownNameError
from merging.graph import Graph, Visit, trace
from merging.landscape.evaluation import Examples, Prepare
from merging.params import Params, lerp

Kind = Literal["reset", "repair", "rescale"]
Policy = Literal["interpolated", "reset", "repair", "rescale"]
Goals = dict[fx.Node, tuple[Tensor, Tensor]]
KINDS = ("reset", "repair", "rescale")

_NORMS = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm")
_MAPS = ("linear", "conv1d", "conv2d", "conv3d")
_RESHAPES = ("permute", "transpose", "flatten", "view", "contiguous")
_LEAST_DEVIATION = 1e-6


@dataclass(frozen=True)
class Unit:
    """An operator whose output channels can be corrected through its own parameters.

    Attributes:
        node: The operator.
        channels: Axis of the channels in its output.
        weight: State-dict name of the parameter whose axis 0 is the channels, if it has one.
        bias: State-dict name of the shift, if it has one.
        mean: State-dict name of the running mean, for BatchNorm.
        variance: State-dict name of the running variance, for BatchNorm.
    """

    node: fx.Node
    channels: int
    weight: str | None
    bias: str | None
    mean: str | None = None
    variance: str | None = None


def has_batch_norm(model: nn.Module, batches: Examples) -> bool:
    """Whether the model keeps running statistics that RESET can re-estimate."""
    return any(unit.mean is not None for unit in _units(trace(model, (_one_batch(batches),))))


def reset(model: nn.Module, params: Mapping[str, Tensor], batches: Examples) -> Params:
    """Re-estimate the running statistics of BatchNorm on examples.

    Every norm sees what the norms before it, already re-estimated, let through. All examples are
    taken as one batch, so the estimate does not depend on their order.

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
    units = [unit for unit in _units(graph) if unit.mean is not None]
    if not units:
        raise MergingError(
            f"{type(model).__name__} keeps no running statistics, so there is nothing to RESET; "
            "use REPAIR or RESCALE"
        )
    result: Params = dict(params)
    _walk(graph, units, params, x, lambda unit, value: _renew(unit, value, params, result))
    return result


def repair(
    model: nn.Module,
    params_a: Mapping[str, Tensor],
    params_b: Mapping[str, Tensor],
    lam: float,
    batches: Examples,
    kind: Kind = "repair",
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
    batches: Examples,
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
    units = [unit for unit in _units(graph) if unit.weight is not None]
    if not units:
        raise MergingError(f"{type(model).__name__} has no hidden units that could be corrected")
    result: Params = dict(params)

    def correct(unit: Unit, seen: _Seen) -> Tensor:
        value = seen.output if unit.mean is None else _renew(unit, seen, params, result)
        gain, offset = _correction(value, unit, goals[unit.node], shift=shift)
        _fold(result, unit, gain, offset)
        # The value is the operator's own fresh output, and large: it is corrected where it is.
        return value.mul_(_along(gain, value, unit)).add_(_along(offset, value, unit))

    _walk(graph, units, params, x, correct)
    return result


def unit_statistics(model: nn.Module, params: Mapping[str, Tensor], batches: Examples) -> Goals:
    """Mean and standard deviation of every channel, for all operators that can be corrected.

    Raises:
        DataError: If there are no examples.
    """
    x = _one_batch(batches)
    graph = trace(model, (x,))
    found: Goals = {}

    def measure(unit: Unit, seen: _Seen) -> Tensor:
        found[unit.node] = _mean_and_deviation(seen.output, unit.channels)
        return seen.output

    _walk(graph, [unit for unit in _units(graph) if unit.weight], params, x, measure)
    return found


def with_batch_statistics(graph: Graph, params: Mapping[str, Tensor], x: Tensor) -> Visit:
    """A visit that normalises by the statistics of the batch at hand, as in training."""
    units = [unit for unit in _units(graph) if unit.mean is not None]

    def normalise(unit: Unit, seen: _Seen) -> Tensor:
        weight, bias = (params[name] if name else None for name in (unit.weight, unit.bias))
        return F.batch_norm(seen.input, None, None, weight, bias, training=True, eps=_eps(unit))

    return _visit(graph, units, x, normalise)


def line_policy(
    kind: Policy,
    model: nn.Module,
    params_a: Mapping[str, Tensor],
    params_b: Mapping[str, Tensor],
    batches: Examples,
) -> Prepare | None:
    """What to do with the parameters of every point between two models before evaluation.

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


def plane_policy(kind: Policy, model: nn.Module, batches: Examples) -> Prepare | None:
    """As `line_policy`, for points that are not between two models.

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


def _one_batch(batches: Examples) -> Tensor:
    inputs = [x for x, _ in batches]
    if not inputs or not sum(len(x) for x in inputs):
        raise DataError("statistics need examples, and none were given; give training batches")
    return torch.cat(inputs) if len(inputs) > 1 else inputs[0]


@dataclass(frozen=True)
class _Seen:
    """What an operator read and returned."""

    input: Tensor
    output: Tensor


Change = Callable[[Unit, _Seen], Tensor]


def _walk(
    graph: Graph, units: list[Unit], params: Mapping[str, Tensor], x: Tensor, change: Change
) -> None:
    """Run the graph, replacing the output of every unit as it comes by what `change` returns."""
    with torch.no_grad():
        graph.run(params, (x,), visit=_visit(graph, units, x, change))


def _visit(graph: Graph, units: list[Unit], x: Tensor, change: Change) -> Visit:
    by_node = {unit.node: unit for unit in units}
    read = {unit.node.args[0] for unit in units}
    kept: dict[object, Tensor] = dict.fromkeys(graph.inputs, x)

    def visit(node: fx.Node, value: Tensor) -> Tensor:
        if node in by_node:
            value = change(by_node[node], _Seen(kept[node.args[0]], value))
        if node in read:
            kept[node] = value
        return value

    return visit


def _units(graph: Graph) -> list[Unit]:
    """Hidden operators with parameters of their own whose output no norm undoes."""
    units = []
    for step in graph.steps:
        node, kind = step.node, _kind(step.node)
        names = [graph.sources.get(a) if isinstance(a, fx.Node) else None for a in node.args[1:5]]
        if kind == "batch_norm":
            units.append(Unit(node, 1, *names))
        elif kind in _MAPS and names[0] and _is_correctable(node):
            bias = names[1] if len(names) > 1 else None
            units.append(Unit(node, -1 if kind == "linear" else 1, names[0], bias))
    return units


def _kind(node: fx.Node) -> str:
    name = str(node.target)
    return name.split(".")[1] if name.startswith("aten.") else name


def _is_correctable(node: fx.Node) -> bool:
    """Whether a map is hidden, no norm undoes its scale, and its weight is its own."""
    is_output = any(user.op == "output" for user in node.users)
    weight = node.args[1]
    shared = isinstance(weight, fx.Node) and len(weight.users) > 1
    return not (is_output or shared or _is_normalised(node))


def _is_normalised(node: fx.Node) -> bool:
    """Whether all that reads a value is a norm, changes of shape aside."""
    return bool(node.users) and all(
        _is_normalised(user) if _kind(user) in _RESHAPES else _kind(user) in _NORMS
        for user in node.users
    )


def _renew(unit: Unit, seen: _Seen, params: Mapping[str, Tensor], result: Params) -> Tensor:
    """Normalise by the statistics of what the norm reads now, and note them in `result`."""
    x = seen.input
    variance, mean = torch.var_mean(x, _all_but(1, x))
    result[str(unit.mean)], result[str(unit.variance)] = mean, variance
    weight, bias = (params[name] if name else None for name in (unit.weight, unit.bias))
    return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=_eps(unit))


def _eps(unit: Unit) -> float:
    return float(unit.node.args[7])  # type: ignore[arg-type]


def _mean_and_deviation(value: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(value, _all_but(channels, value), correction=0)
    return mean.double(), variance.double().sqrt()


def _all_but(channels: int, value: Tensor) -> list[int]:
    return [k for k in range(value.dim()) if k != channels % value.dim()]


def _correction(
    value: Tensor, unit: Unit, goal: tuple[Tensor, Tensor], *, shift: bool
) -> tuple[Tensor, Tensor]:
    """Gain and offset that give `value` the goal; a unit that says nothing keeps its gain."""
    mean, deviation = _mean_and_deviation(value, unit.channels)
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


def _along(vector: Tensor, value: Tensor, unit: Unit) -> Tensor:
    shape = [1] * value.dim()
    shape[unit.channels] = -1
    return vector.to(value.dtype).view(shape)
