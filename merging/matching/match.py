"""The matching methods, in one table; its order is the order of menus."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from merging.files.data.batches import BatchesLike
from merging.matching.methods import activation, straight_through, weight
from merging.matching.problem import MatchProblem, MatchResult, Method, Watcher
from merging.models.state_dict import check_same_architecture
from merging.schema.cards.matching import find_card, read_options
from merging.schema.errors import MergingError
from merging.schema.progress import Progress, ignore
from merging.symmetry.spec import PermutationSpec

METHODS: Mapping[str, Method] = MappingProxyType({
    m.name: m for m in (weight.METHOD, activation.METHOD, straight_through.METHOD)
})


def match(
    method: str,
    model: nn.Module,
    params_a: Mapping[str, Tensor],
    params_b: Mapping[str, Tensor],
    *,
    spec: PermutationSpec,
    batches: BatchesLike | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    on_progress: Progress | None = None,
    on_partial: Callable[[MatchResult], None] | None = None,
    on_state: Callable[[Callable[[], Mapping[str, Tensor]]], None] | None = None,
    state: Mapping[str, Tensor] | None = None,
) -> MatchResult:
    """Find the permutation of B's units that lines B up with A.

    Args:
        method: `"weight"`, `"activation"` or `"straight_through"`.
        model: The architecture.
        params_a: State dict of model A, the reference.
        params_b: State dict of model B.
        spec: The permutation spec of the architecture.
        batches: Examples, for methods that need them.
        seed: Seed of everything random.
        options: The method's options by name; the rest have their defaults.
        on_progress: Called with `(done, total, note)`; if it raises `StoppedError`, the best
            permutation so far is returned.
        on_partial: Called with the best result so far, by methods that go step by step.
        on_state: Called with a function that returns, as tensors by name, what straight-through
            matching could go on from. They are good until it goes on.
        state: Such tensors, from a run of the same models, examples, seed and options: it is gone
            on from there, and the result is that of a run that was never stopped.

    Returns:
        The permutation and how it was found.

    Raises:
        UnknownNameError: If there is no such method or option.
        ArchitectureMismatchError: If the models do not fit; layers are named.
        SymmetryError: If the spec does not fit the models.
        MergingError: If a weight is NaN or infinite; the tensor is named.
        DataError: If the method needs examples and there are none.

    Example:
        >>> from merging import find_symmetry, load_pair
        >>> pair = load_pair("two-unit-counterexample")
        >>> spec = find_symmetry(pair.model, (pair.data.test.inputs[:2],))
        >>> found = match("weight", pair.model, pair.params_a, pair.params_b, spec=spec)
        >>> [perm.tolist() for perm in found.permutations.values()]
        [[1, 0], [1, 0]]
    """
    read = read_options(find_card(method), options)
    check_same_architecture(params_a, params_b)
    spec.check(params_a)
    models = [_plain(params, name) for params, name in ((params_a, "A"), (params_b, "B"))]
    problem = MatchProblem(
        model=model, spec=spec, params_a=models[0], params_b=models[1], batches=batches
    )
    start = time.perf_counter()

    def labelled(found: MatchResult) -> MatchResult:
        seconds = time.perf_counter() - start
        return replace(found, seconds=seconds, method=method, options=asdict(read), seed=seed)

    tell = on_partial or ignore
    watcher = Watcher(
        on_progress=on_progress or ignore,
        on_partial=lambda found: tell(labelled(found)),
        on_state=on_state or ignore,
        state=state,
    )
    generator = torch.Generator().manual_seed(seed)
    return labelled(METHODS[method].run(problem, read, generator, watcher))


def _plain(params: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the parameters without their gradients' history.

    Raises:
        MergingError: If a weight is NaN or infinite; the tensor is named.
    """
    for key, value in params.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise MergingError(
                f"model {name} has NaN or infinite values in {key!r}; weights must be finite to be "
                "matched. Load a sound checkpoint"
            )
    return {key: value.detach() for key, value in params.items()}
