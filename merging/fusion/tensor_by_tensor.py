"""From tensor to tensor: a rule that is ready to give each, and what it has to say afterwards."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from merging.files.checkpoints.lazy_params import StateDict
from merging.fusion.blocks import Entries, entries
from merging.fusion.problem import FusionProblem
from merging.fusion.rule import Buffers, Counted, Rule, weighted_mean
from merging.schema.progress import Progress


class Walk:
    """A rule that knows of the whole models what it has to, and fuses tensor by tensor.

    Args:
        rule: The rule.
        problem: The problem, checked.
        options: The rule's options record.
        buffers: What becomes of running statistics.
        on_progress: Called with `(done, total, note)`; what comes before the tensors is half of
            the way.
    """

    def __init__(
        self,
        rule: Rule,
        problem: FusionProblem,
        options: Any,
        buffers: Buffers,
        on_progress: Progress,
    ) -> None:
        self._rule, self._options, self._buffers = rule, options, buffers
        self._tell, steps = on_progress, len(problem.models[0])
        self._done, self._total = 0, steps
        if rule.prepare is not None:
            self._total = 2 * steps
            problem = rule.prepare(problem, options, self._tell_before)
            self._done = steps
        self._problem = problem
        self._first: StateDict = next(
            (m for m, w in zip(problem.models, problem.weights, strict=True) if w),
            problem.models[0],
        )
        shares = [1.0] * len(problem.models) if _is_of_tasks(rule) else problem.weights
        self._means = problem.reweighted(shares)
        self._counts: Counter[str] = Counter()
        self._entries = 0
        self._wrong, self._first_wrong = 0, ""

    def spec(self, name: str) -> tuple[tuple[int, ...], torch.dtype]:
        """Return the shape and type of a fused tensor: those of the first model's."""
        specs = getattr(self._problem.models[0], "specs", self._problem.models[0])
        return tuple(specs[name].shape), specs[name].dtype

    def tensor(self, name: str) -> Tensor:
        """Return the fused tensor of one name, in the type of the first model's."""
        shape, dtype = self.spec(name)
        blocks = self.blocks(name)
        return Entries(shape, dtype, lambda: blocks).tensor()

    def blocks(self, name: str) -> Iterator[Tensor]:
        """Return the fused tensor of one name, block by block.

        Args:
            name: The tensor's.

        Returns:
            Its entries `[n]`, in the type that they are computed in; each block counts until the
            next is asked for.
        """
        return self._told(name, self._fused(name))

    def _told(self, name: str, fused: Entries | Counted) -> Iterator[Tensor]:
        value = fused.value if isinstance(fused, Counted) else fused
        for block in value:
            self._look(block, name)
            yield block
        if isinstance(fused, Counted):
            self._counts.update(fused.counts)
            self._entries += math.prod(value.shape)
        self._done += 1
        self._tell(self._done, self._total, name)

    @property
    def notes(self) -> Mapping[str, Any]:
        """What the rule found out; shares are of all entries that it fused."""
        shares = {f"{what}_share": n / max(1, self._entries) for what, n in self._counts.items()}
        said = {**self._problem.notes, **shares}
        if self._wrong:
            said["warning"] = (
                f"{self._wrong:,} entries of the result are NaN or infinite, the first in "
                f"{self._first_wrong!r}: models hold such values, and the rule cannot leave them "
                "out; leave those models out"
            )
        return said

    def _look(self, block: Tensor, name: str) -> None:
        """Count entries that are no numbers; a sum finds most blocks free of such at once."""
        if block.is_floating_point() and not math.isfinite(block.sum()):
            wrong = len(block) - int(block.isfinite().sum())
            if wrong and not self._wrong:
                self._first_wrong = name
            self._wrong += wrong

    def _tell_before(self, done: float, of: float, note: str) -> None:
        self._tell(self._total / 2 * done / of, self._total, note)

    def _fused(self, name: str) -> Entries | Counted:
        if not self._problem.is_floating(name):
            return entries(self._first, name)
        if self._buffers != "rule" and name in self._problem.statistics:
            if self._buffers == "first":
                return entries(self._first, name)
            return weighted_mean(self._averaged(name), name)
        return self._rule.fuse(self._problem, name, self._options)

    def _averaged(self, name: str) -> FusionProblem:
        """Whose running statistics are averaged; a robust rule leaves out what is not finite."""
        if self._rule.card.family != "robust":
            return self._means
        sound = [
            weight * all(bool(block.isfinite().all()) for block in entries(model, name))
            for model, weight in zip(self._means.models, self._means.weights, strict=True)
        ]
        return self._means.reweighted(sound) if any(sound) else self._means


def _is_of_tasks(rule: Rule) -> bool:
    """Return whether the weights are factors of task vectors, which no mean can be taken with."""
    return rule.card.weights == "scales"
