"""Loss and accuracy of families of parameter settings of one model: the one place that evaluates.

A family is a set of points in the span of a few corners: point `k` has the parameters
`sum_j weights[k, j] * corners[j]`. Whatever reads the data through one linear map only is linear
in the parameters too, so it is computed once per corner and then combined, point by point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from merging.files.checkpoints.lazy_params import Params
from merging.files.data.batches import BatchesLike
from merging.landscape.evaluate.losses import score
from merging.landscape.evaluate.weighted_sums import Mixture
from merging.models.graph.export import trace
from merging.models.graph.graph import Graph, Step, execute, in_place
from merging.models.graph.operators import operator_name
from merging.models.state_dict import combine
from merging.schema.errors import DataError
from merging.schema.progress import Progress

Prepare = Callable[[Params, Sequence[float]], Params]

# Bytes of the largest activation of a chunk of examples: what fits the processor's caches.
_CHUNK_BYTES = 1 << 23
# Bytes of shared results above which no further chunk of examples joins a group.
_SHARED_BYTES = 1 << 26
# Multiplications per output below which combining is no cheaper than computing afresh.
_LEAST_REUSE = 32
_LINEAR_MAPS = ("linear", "conv1d", "conv2d")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Losses and answers of every point on every example.

    Attributes:
        losses: float32 `[points, examples]`, nats.
        correct: bool `[points, examples]`; shares for tokens, NaN for regression (`scores`).
    """

    losses: NDArray[np.float32]
    correct: NDArray[np.bool_] | NDArray[np.float32]

    @property
    def loss(self) -> NDArray[np.float64]:
        """Mean loss `[points]`."""
        return self.losses.mean(axis=1, dtype=np.float64)

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """Fraction of right answers `[points]`."""
        return self.correct.mean(axis=1, dtype=np.float64)

    @property
    def standard_error(self) -> NDArray[np.float64]:
        """Standard error of the mean loss over the examples `[points]`."""
        with np.errstate(invalid="ignore"):
            spread = self.losses.std(axis=1, dtype=np.float64, ddof=1)
        return spread / np.sqrt(self.losses.shape[1])


def evaluate(model: nn.Module, params: Mapping[str, Tensor], batches: BatchesLike) -> Evaluation:
    """Evaluate one parameter setting.

    Args:
        model: The architecture.
        params: State dict.
        batches: Any re-iterable of `(inputs, targets)`.

    Returns:
        An evaluation of one point.

    Raises:
        DataError: If there are no examples, or a label does not fit the outputs.
    """
    return evaluate_family(model, [params], np.ones((1, 1)), batches)


def evaluate_family(
    model: nn.Module,
    corners: Sequence[Mapping[str, Tensor]],
    weights: NDArray[np.float64],
    batches: BatchesLike,
    *,
    prepare: Prepare | None = None,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Evaluate many points in the span of a few parameter settings.

    A corner of weight 0 is left out, so that a point which is a corner is evaluated exactly as
    that corner by itself. Tensors that are not floating are taken from the first corner.

    Args:
        model: The architecture.
        corners: State dicts of equal names and shapes.
        weights: `[points, corners]`.
        batches: Any re-iterable of `(inputs, targets)`.
        prepare: Called with the parameters and the weights of every point; what it returns is
            evaluated instead (statistics re-estimated, say).
        on_progress: Called with points done and points in all; may raise `StoppedError`.

    Returns:
        Losses and answers; NaN and infinity are kept as they come out.

    Raises:
        DataError: If there are no examples, or a label does not fit the outputs.
        StoppedError: If `on_progress` raises it.
    """
    chunks = [chunk for x, y in batches if len(y) for chunk in _cut(model, corners[0], x, y)]
    if not chunks:
        raise DataError("there are no examples to evaluate on; give at least one batch")
    reuse = prepare is None and len(weights) > len(corners)
    losses = torch.empty(len(weights), sum(len(chunk.targets) for chunk in chunks))
    correct = torch.empty(losses.shape, dtype=_answer_dtype(chunks[0].targets))
    start = 0
    for families in _groups(model, corners, chunks, reuse=reuse):
        stop = start + sum(len(family.chunk.targets) for family in families)
        needed = [{name: corner[name] for name in families[0].names} for corner in corners]
        mixture = Mixture(needed)
        with torch.no_grad():
            for k, row in enumerate(weights.tolist()):
                if prepare is None:
                    params = mixture.at(row)
                else:  # in the same memory layout, so that equal parameters give equal values
                    params = Mixture([prepare(combine(corners, row), row)]).at((1.0,))
                results = [family.evaluate(row, params) for family in families]
                losses[k, start:stop] = torch.cat([loss for loss, _ in results])
                correct[k, start:stop] = torch.cat([right for _, right in results])
                if on_progress is not None:
                    done = start * len(weights) + (stop - start) * (k + 1)
                    on_progress(done / losses.shape[1], len(weights), "points evaluated")
        start = stop
        del families  # before the next group takes its place in memory
    return Evaluation(losses.numpy(), correct.numpy())


@dataclass(frozen=True, eq=False)
class _Chunk:
    inputs: Tensor
    targets: Tensor


def _cut(model: nn.Module, params: Mapping[str, Tensor], x: Tensor, y: Tensor) -> list[_Chunk]:
    """Cut a batch so that the largest activation of a chunk stays small."""
    size = chunk_size(trace(model, (x,)), params, x)
    return [_Chunk(a, b) for a, b in zip(x.split(size), y.split(size), strict=True)]


def chunk_size(graph: Graph, params: Mapping[str, Tensor], x: Tensor) -> int:
    """Return how many examples pass a model at once, so that its largest activation stays small.

    Args:
        graph: The model.
        params: State dict.
        x: All examples.

    Returns:
        A number of examples; all of them, if the model takes no other number.
    """
    largest = 0

    def measure(_: fx.Node, value: object) -> object:
        nonlocal largest
        if isinstance(value, Tensor):
            largest = max(largest, value.numel() * value.element_size())
        return value

    if not graph.batched:
        return len(x)
    with torch.no_grad():
        graph.run(params, (x[:1],), visit=measure)
    return max(16, _CHUNK_BYTES // max(1, largest))


def _answer_dtype(targets: Tensor) -> torch.dtype:
    """Return the dtype of answers: classes are right or wrong; of tokens a share is right."""
    single = targets.dim() == 1 and not targets.is_floating_point()
    return torch.bool if single else torch.float32


class _Family:
    """The points of a family on one chunk of examples, with what they share computed once."""

    def __init__(
        self,
        model: nn.Module,
        corners: Sequence[Mapping[str, Tensor]],
        chunk: _Chunk,
        *,
        reuse: bool,
    ) -> None:
        self.model, self.chunk = model, chunk
        self.graph = trace(model, (chunk.inputs,))
        shared = _share(self.graph, corners, chunk.inputs) if reuse else _Shared({}, [])
        self.known: dict[fx.Node, object] = {**self.graph.constants, **shared.constant}
        self.known.update(dict.fromkeys(self.graph.inputs, chunk.inputs))
        self.maps = Mixture(shared.maps) if shared.maps else None
        self.shared_bytes = sum(value.nbytes for maps in shared.maps for value in maps.values())
        mapped = frozenset(shared.maps[0]) if shared.maps else frozenset()
        program = self.graph.remaining(mapped | frozenset(shared.constant))
        self.program = in_place(program, mapped)
        read = {node for step in program for node in step.node.all_input_nodes}
        self.sources = {n: name for n, name in self.graph.sources.items() if n in read}
        self.names = tuple(dict.fromkeys(self.sources.values()))

    def evaluate(
        self, point: Sequence[float], params: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return losses float32 `[n]` and answers `[n]` at one point of given parameters."""
        return score(self._logits(point, params), self.chunk.targets)

    def _logits(self, point: Sequence[float], params: Mapping[str, Tensor]) -> Tensor:
        if not self.graph.batched:
            logits: Tensor = torch.func.functional_call(
                self.model, dict(params), (self.chunk.inputs,), tie_weights=False
            )
            return logits
        own = self.graph.own
        values = {node: own(node, value) for node, value in self.known.items()}
        values.update((node, own(node, params[name])) for node, name in self.sources.items())
        if self.maps is not None:
            values.update(self.maps.at(point))
        return self.graph.finish(self.program, values)


def _groups(
    model: nn.Module,
    corners: Sequence[Mapping[str, Tensor]],
    chunks: Sequence[_Chunk],
    *,
    reuse: bool,
) -> Iterator[list[_Family]]:
    """Cut the chunks into groups, so that what their points share stays small.

    Yields:
        The families of some chunks; they are forgotten before the next are made.
    """
    group: list[_Family] = []
    for chunk in chunks:
        group.append(_Family(model, corners, chunk, reuse=reuse))
        if sum(family.shared_bytes for family in group) >= _SHARED_BYTES:
            yield group
            group = []
    if group:
        yield group


@dataclass(frozen=True, eq=False)
class _Shared:
    """What the points of a family have in common.

    Attributes:
        constant: Values that no parameter touches.
        maps: For every corner, the results of the linear maps that read only such values.
    """

    constant: dict[fx.Node, Tensor]
    maps: list[dict[fx.Node, Tensor]]


def _share(graph: Graph, corners: Sequence[Mapping[str, Tensor]], inputs: Tensor) -> _Shared:
    data: set[fx.Node] = {*graph.inputs, *graph.constants} - graph.written
    maps: set[fx.Node] = set()
    prefix: list[Step] = []
    for step in graph.steps:
        if all(used in data for used in step.node.all_input_nodes):
            if graph.memory[step.node] in graph.written:
                continue  # it may have other values at other points, or at other times
            data.add(step.node)
        elif _is_shared_map(step.node, graph, data, corners[0]):
            maps.add(step.node)
        else:
            continue
        prefix.append(replace(step, frees=()))
    if not maps or not graph.batched:
        return _Shared({}, [])
    results: list[dict[fx.Node, Tensor]] = []
    with torch.no_grad():
        for corner in corners:
            values = graph.bind(corner, (inputs,))
            execute(prefix, values)
            results.append({node: values[node] for node in maps})
    constant = {step.node: values[step.node] for step in prefix if step.node not in maps}
    return _Shared(constant, results)


def _is_shared_map(
    node: fx.Node, graph: Graph, data: set[fx.Node], corner: Mapping[str, Tensor]
) -> bool:
    if operator_name(node) not in _LINEAR_MAPS or len(node.args) < 2:
        return False
    x, *parameters = node.args[:3]
    if x not in data or any(p is not None and p not in graph.sources for p in parameters):
        return False
    weight = corner[graph.sources[parameters[0]]]  # type: ignore[index]
    return weight[0].numel() >= _LEAST_REUSE
