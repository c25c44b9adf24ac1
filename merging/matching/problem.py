"""What all matching methods share: the problem, the result, and how a method is described."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from merging.files.data.batches import BatchesLike
from merging.schema.cards.matching import MethodCard
from merging.schema.errors import DataError
from merging.schema.progress import Progress, ignore
from merging.symmetry.permutation import Permutations
from merging.symmetry.spec import PermutationSpec


@dataclass(frozen=True, eq=False)
class MatchProblem:
    """Two models to be matched.

    Attributes:
        model: The architecture.
        spec: Its permutation spec.
        params_a: State dict of model A, the reference.
        params_b: State dict of model B, whose units are permuted.
        batches: Examples to match on, for methods that need them.
    """

    model: nn.Module
    spec: PermutationSpec
    params_a: Mapping[str, Tensor]
    params_b: Mapping[str, Tensor]
    batches: BatchesLike | None = None

    @cached_property
    def weights(self) -> tuple[str, ...]:
        """Parameters that are compared: each tied tensor once, and no running statistics."""
        seen: set[int] = set()
        names = []
        for name, value in self.model.named_parameters(remove_duplicate=False):
            if id(value) not in seen and value.is_floating_point():
                names.append(name)
            seen.add(id(value))
        return tuple(names)

    def examples(self, method: str) -> list[tuple[Tensor, Tensor]]:
        """Return the examples to match on.

        Raises:
            DataError: If there are none.
        """
        batches = [] if self.batches is None else list(self.batches)
        if not any(len(y) for _, y in batches):
            raise DataError(
                f"{method} compares what the models do on examples, and none were given; "
                "give batches, or use weight matching, which needs none"
            )
        return batches


@dataclass(frozen=True)
class MatchResult:
    """The permutation that a method found.

    Attributes:
        permutations: `{group: int64 [n]}`; `perm[i]` is B's unit that plays A's unit `i`. Of
            nested groups `[*parents, n]`, a row for every position of A's parents.
        objective: The method's own objective: at the start, then per sweep or step.
        objective_name: What the objective is, in words.
        converged: Whether the method stopped by itself.
        stopped: Whether the caller stopped it; the permutation is the best found until then.
        seconds: Wall-clock time.
        method: The method's name.
        options: The options that were used.
        seed: The seed that was used.
        restarts: Final objective of every restart.
    """

    permutations: Permutations
    objective: tuple[float, ...]
    objective_name: str
    converged: bool
    stopped: bool = False
    seconds: float = 0.0
    method: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    restarts: tuple[float, ...] = ()


Run = Callable[[MatchProblem, Any, torch.Generator, "Watcher"], MatchResult]


@dataclass(frozen=True)
class Method:
    """A matching method: its card, and the function that finds the permutation.

    `run` returns what it has found so far when the watcher's `on_progress` raises `StoppedError`.
    """

    card: MethodCard
    run: Run

    @property
    def name(self) -> str:
        """What callers call it."""
        return self.card.name

    @property
    def options(self) -> type:
        """The dataclass of its options."""
        return self.card.options


@dataclass(frozen=True, eq=False)
class Watcher:
    """Who watches a method at work.

    Attributes:
        on_progress: Called with `(done, total, note)`; may raise `StoppedError`.
        on_partial: Called with the best result so far.
        on_state: Called with a function that returns what the method could go on from. That shares
            memory with the method: it is good until the method goes on.
        state: Such tensors of a run before, to go on from; None to start from nothing.
    """

    on_progress: Progress = ignore
    on_partial: Callable[[MatchResult], None] = ignore
    on_state: Callable[[Callable[[], Mapping[str, Tensor]]], None] = ignore
    state: Mapping[str, Tensor] | None = None
