"""Distillation of several models into one of their size (Hinton et al. 2015, arXiv 1503.02531).

The student starts where it is put, at the mean of aligned models, say, and learns the teachers'
mean answers. With the temperature `T`, teachers' shares `w` and `softmax_T(z) = softmax(z / T)`, it
minimises, by Adam,

    T² KL( sum of w softmax_T(teacher) ‖ softmax_T(student) )  +  c · cross-entropy with the labels.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from merging.files.checkpoints.lazy_params import Params
from merging.files.data.batches import BatchesLike
from merging.landscape.evaluate.losses import score
from merging.landscape.statistics.repair import has_batch_norm, reset, with_batch_statistics
from merging.models.graph.export import trace
from merging.models.graph.graph import Graph
from merging.models.state_dict import check_same_architecture
from merging.schema.cards.fusion.networks import DistillOptions
from merging.schema.errors import DataError, MergingError, StoppedError
from merging.schema.options import read_record
from merging.schema.progress import Progress, ignore

# Examples that pass a model at a time when nothing is learnt.
_CHUNK = 500


@dataclass(frozen=True, eq=False)
class DistillResult:
    """A student, and how it learnt.

    Attributes:
        params: Its state dict: the best of those at the start and after every pass.
        loss: What is minimised, over all examples: at the start and after every pass.
        stopped: Whether the caller stopped it.
        seconds: Wall-clock time.
        options: The options that were used.
        seed: Seed of the orders of the examples.
    """

    params: Params
    loss: tuple[float, ...]
    stopped: bool
    seconds: float
    options: Mapping[str, Any]
    seed: int


def distill(
    model: nn.Module,
    params: Mapping[str, Tensor],
    teachers: Sequence[Mapping[str, Tensor]],
    batches: BatchesLike,
    *,
    weights: Sequence[float] | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> DistillResult:
    """Teach a model the mean answers of several.

    BatchNorm uses the statistics of each batch while it learns, and those of all examples after.

    Args:
        model: The architecture of all.
        params: Where the student starts; left as it is.
        teachers: State dicts of the teachers, in whatever order of units.
        batches: Training examples; labels are read only if they have a weight.
        weights: Share of every teacher; by default equal.
        options: Options of `DistillOptions` by name.
        seed: Seed of the orders of the examples.
        on_progress: Called with steps done and steps in all; if it raises `StoppedError`, the best
            student so far is returned.

    Returns:
        The student and the course of its loss.

    Raises:
        MergingError: If there are no teachers, or not one share for each.
        UnknownNameError: If there is no such option.
        ArchitectureMismatchError: If the models do not fit.
        DataError: If there are no examples, or the model gives numbers and no classes.

    Example:
        >>> from merging import load_pair
        >>> pair = load_pair("two-unit-counterexample")
        >>> teachers, data = [pair.params_a, pair.params_b], pair.data.train.take(500)
        >>> found = distill(pair.model, pair.params_a, teachers, data, options={"epochs": 1})
        >>> len(found.loss)
        2
    """
    start = time.perf_counter()
    read: DistillOptions = read_record("Distillation", DistillOptions, options)
    shares = _shares(teachers, weights)
    for teacher in teachers:
        check_same_architecture(params, teacher, dtype=False)
    inputs, targets = _joined(batches)
    lesson = _Lesson(model, inputs, targets, read)
    lesson.listen(teachers, shares)
    student = _Student(model, params, lesson)
    best, losses, stopped = student.state(), [student.loss()], False
    generator = torch.Generator().manual_seed(seed)
    steps = -(-len(inputs) // read.batch_size)
    tell = on_progress or ignore
    try:
        for epoch in range(read.epochs):
            order = torch.randperm(len(inputs), generator=generator)
            for k, chosen in enumerate(order.split(read.batch_size)):
                student.step(chosen)
                note = f"pass {epoch + 1} of {read.epochs}: loss {losses[-1]:.4g}"
                tell(epoch * steps + k + 1, read.epochs * steps, note)
            losses.append(student.loss())
            if losses[-1] <= min(losses):
                best = student.state()
    except StoppedError:
        stopped = True
    if lesson.normed and len(losses) > 1:
        best = reset(model, best, [(inputs, targets)])
    seconds = time.perf_counter() - start
    return DistillResult(
        params=best,
        loss=tuple(losses),
        stopped=stopped,
        seconds=seconds,
        options=asdict(read),
        seed=seed,
    )


class _Lesson:
    """The examples, what the teachers say to them, and how a student is marked."""

    def __init__(
        self, model: nn.Module, inputs: Tensor, targets: Tensor, options: DistillOptions
    ) -> None:
        self.inputs, self.targets, self.options = inputs, targets, options
        self.graph: Graph = trace(model, (inputs[:2],))
        self.normed = has_batch_norm(model, [(inputs[:2], targets[:2])])
        self.answers = torch.empty(0)

    def listen(self, teachers: Sequence[Mapping[str, Tensor]], shares: Sequence[float]) -> None:
        """Note the teachers' mean answers."""
        heard = []
        with torch.no_grad():
            for x in self.inputs.split(_CHUNK):
                said = [self.graph.run(teacher, (x,)) for teacher in teachers]
                tempered = [self._log_softmax(z).exp() for z in said]
                heard.append(sum(w * p for w, p in zip(shares, tempered, strict=True)))
        self.answers = torch.cat(heard)  # type: ignore[arg-type]

    def loss(self, outputs: Tensor, chosen: Tensor) -> Tensor:
        """Return the mean loss over some examples."""
        t, labels = self.options.temperature, self.options.labels
        wanted = self.answers[chosen]
        found = F.kl_div(self._log_softmax(outputs), wanted, reduction="none").sum(-1).mean()
        total = t * t * found
        if labels:
            total = total + labels * score(outputs, self.targets[chosen])[0].mean()
        return total

    def _log_softmax(self, outputs: Tensor) -> Tensor:
        if outputs.shape[-1] == 1:  # yes or no: the logit of no is 0
            outputs = torch.cat([torch.zeros_like(outputs), outputs], -1)
        return F.log_softmax(outputs / self.options.temperature, -1)


class _Student:
    """Parameters that learn."""

    def __init__(self, model: nn.Module, params: Mapping[str, Tensor], lesson: _Lesson) -> None:
        trained = dict(model.named_parameters(remove_duplicate=False))
        self._lesson, self._aliases = lesson, lesson.graph.aliases
        self._params: Params = {
            name: value
            .detach()
            .clone()
            .requires_grad_(
                name in trained and value.is_floating_point() and name not in self._aliases
            )
            for name, value in params.items()
        }
        learning = [value for value in self._params.values() if value.requires_grad]
        self._optimiser = torch.optim.Adam(learning, lesson.options.lr)

    def step(self, chosen: Tensor) -> None:
        """Learn from some examples."""
        loss = self._lesson.loss(self._outputs(self._lesson.inputs[chosen]), chosen)
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()

    def loss(self) -> float:
        """Return the mean loss over all examples."""
        total, count = 0.0, len(self._lesson.inputs)
        with torch.no_grad():
            for chosen in torch.arange(count).split(_CHUNK):
                outputs = self._outputs(self._lesson.inputs[chosen])
                total += float(self._lesson.loss(outputs, chosen)) * len(chosen)
        return total / count

    def state(self) -> Params:
        """Return a copy of the parameters as they are."""
        copy = {name: value.detach().clone() for name, value in self._params.items()}
        return {name: copy[self._aliases.get(name, name)] for name in copy}

    def _outputs(self, x: Tensor) -> Tensor:
        graph = self._lesson.graph
        visit = with_batch_statistics(graph, self._params, x) if self._lesson.normed else None
        return graph.run(self._params, (x,), visit=visit)


def _joined(batches: BatchesLike) -> tuple[Tensor, Tensor]:
    parts = [(x, y) for x, y in batches if len(x)]
    if not parts:
        raise DataError(
            "a student learns from examples, and none were given; give training batches"
        )
    inputs, targets = torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])
    if targets.is_floating_point():
        raise DataError(
            "distillation learns class probabilities, and the targets are numbers; give a "
            "classifier and its examples"
        )
    return inputs, targets


def _shares(
    teachers: Sequence[Mapping[str, Tensor]], weights: Sequence[float] | None
) -> list[float]:
    given = [1.0] * len(teachers) if weights is None else [float(w) for w in weights]
    if not teachers or len(given) != len(teachers):
        raise MergingError(
            f"got {len(teachers)} teachers and {len(given)} shares; give one or more teachers and "
            "a share for each"
        )
    if min(given) < 0 or not sum(given):
        raise MergingError(f"shares of teachers must be positive, and got {given}")
    return [w / sum(given) for w in given]
