"""The hidden units of a model whose statistics can be corrected, and a walk that halts at each.

Statistics are those of all examples, but all examples at once would fill the memory of a
convolutional network several times over. So they pass the graph in chunks, side by side: every
chunk goes as far as the next unit, and what the unit reads or returns is measured over all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from merging.landscape.evaluate.evaluation import chunk_size
from merging.models.graph.graph import Graph, Step, execute, in_place
from merging.models.graph.operators import operator_name

_NORMS = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm")
_MAPS = ("linear", "conv1d", "conv2d", "conv3d")
_RESHAPES = ("permute", "transpose", "flatten", "view", "contiguous")


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

    @property
    def reads(self) -> fx.Node:
        """The value that the operator reads."""
        return self.node.args[0]  # type: ignore[return-value]


@dataclass(frozen=True, eq=False)
class ChannelMoments:
    """Mean and variance of every channel, float64 `[channels]`, and what they were taken over."""

    mean: Tensor
    variance: Tensor
    count: int

    @property
    def deviation(self) -> Tensor:
        """Standard deviation of the values themselves."""
        return self.variance.sqrt()

    @property
    def unbiased_variance(self) -> Tensor:
        """Estimate of the variance where the values come from, as BatchNorm keeps it."""
        return self.variance * (self.count / max(1, self.count - 1))


def moments(values: Iterable[Tensor], channels: int) -> ChannelMoments:
    """Return the moments of all chunks together.

    Args:
        values: One tensor per chunk.
        channels: The axis that is kept.

    Returns:
        The moments over all other axes and chunks.
    """
    means, variances, counts = [], [], []
    for value in values:
        others = [k for k in range(value.dim()) if k != channels % value.dim()]
        variance, mean = torch.var_mean(value, others, correction=0)
        means.append(mean.double())
        variances.append(variance.double())
        counts.append(value.numel() // value.shape[channels])
    weights = torch.tensor(counts, dtype=torch.float64) / sum(counts)
    mean = weights @ torch.stack(means)
    spread = torch.stack(variances) + (torch.stack(means) - mean) ** 2
    return ChannelMoments(mean, weights @ spread, sum(counts))


Before = Callable[[Unit, ChannelMoments], Mapping[str, Tensor]]
After = Callable[[Unit, ChannelMoments], tuple[Tensor, Tensor] | None]


def walk(
    graph: Graph,
    units: list[Unit],
    params: Mapping[str, Tensor],
    x: Tensor,
    *,
    before: Before | None = None,
    after: After | None = None,
) -> None:
    """Run a graph from unit to unit.

    Args:
        graph: The model.
        units: Where to halt.
        params: State dict to run with.
        x: All examples.
        before: Called with every BatchNorm and the moments of what it is about to read; the
            running statistics that it returns, by name, are used instead.
        after: Called with every unit and the moments of its output; the gain and the offset per
            channel that it returns, if any, are applied to the output.
    """
    with torch.no_grad():
        size = chunk_size(graph, params, x)
        chunks = [graph.bind(params, (chunk,)) for chunk in x.split(size)]
        for stretch, step, unit in _stretches(graph, units):
            for values in chunks:
                execute(stretch, values)
            if before is not None and unit.mean is not None:
                found = moments((values[unit.reads] for values in chunks), 1)
                renewed = before(unit, found)
                for node in unit.node.all_input_nodes:
                    if graph.sources.get(node) in renewed:
                        for values in chunks:
                            values[node] = renewed[graph.sources[node]]
            for values in chunks:
                execute([step], values)
            if after is not None:
                _correct(unit, [values[unit.node] for values in chunks], after)


def _correct(unit: Unit, outputs: list[Tensor], after: After) -> None:
    change = after(unit, moments(outputs, unit.channels))
    if change is None:
        return
    for output in outputs:  # large, and the operator's own fresh output: corrected where it is
        gain, offset = (_along(vector, output, unit) for vector in change)
        output.mul_(gain).add_(offset)


def _stretches(graph: Graph, units: list[Unit]) -> Iterator[tuple[list[Step], Step, Unit]]:
    """Cut a graph at its units.

    Yields:
        The steps up to a unit, its own step, and the unit.
    """
    by_node = {unit.node: unit for unit in units}
    stretch: list[Step] = []
    for step in in_place(graph.steps, frozenset()):
        if step.node in by_node:
            yield stretch, step, by_node[step.node]
            stretch = []
        else:
            stretch.append(step)


def _along(vector: Tensor, value: Tensor, unit: Unit) -> Tensor:
    shape = [1] * value.dim()
    shape[unit.channels] = -1
    return vector.to(value.dtype).view(shape)


def find_units(graph: Graph) -> list[Unit]:
    """Find the hidden operators with parameters of their own whose output no norm undoes."""
    units = []
    for step in graph.steps:
        node, kind = step.node, operator_name(step.node)
        names = [graph.sources.get(a) if isinstance(a, fx.Node) else None for a in node.args[1:5]]
        if kind == "batch_norm":
            units.append(Unit(node, 1, *names))
        elif kind in _MAPS and names[0] and _is_correctable(node):
            bias = names[1] if len(names) > 1 else None
            units.append(
                Unit(node=node, channels=-1 if kind == "linear" else 1, weight=names[0], bias=bias)
            )
    return units


def _is_correctable(node: fx.Node) -> bool:
    """Return whether a map is hidden, no norm undoes its scale, and its weight is its own."""
    is_output = any(user.op == "output" for user in node.users)
    weight = node.args[1]
    shared = isinstance(weight, fx.Node) and len(weight.users) > 1
    return not (is_output or shared or _is_normalised(node))


def _is_normalised(node: fx.Node) -> bool:
    """Return whether all that reads a value is a norm, changes of shape aside."""
    return bool(node.users) and all(
        _is_normalised(user) if operator_name(user) in _RESHAPES else operator_name(user) in _NORMS
        for user in node.users
    )
