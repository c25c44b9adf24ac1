"""Two to twenty models lined up in one common order of units."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from math import nan
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from merging.matching.many.frank_wolfe import climb
from merging.matching.many.merge_many import Reached, WideModels, rise
from merging.matching.match import match
from merging.schema.cards.matching import CommonOrderKind
from merging.schema.errors import StoppedError, UnknownNameError
from merging.schema.options import read_record
from merging.schema.progress import Progress, ignore
from merging.symmetry.permutation import Permutations, compose_permutations, invert_permutations
from merging.symmetry.spec import PermutationSpec


@dataclass(frozen=True)
class ManyOptions:
    """Options of all kinds.

    Attributes:
        max_rounds: Rounds over all models at most.
        max_sweeps: Sweeps over the groups at most, per matching.
        restarts: Runs of every matching of two models, of which the best is kept.
        steps: Sweeps of Frank–Wolfe over the groups at most.
        cycle_models: Among how many of the models, from the first, all pairs are matched to
            measure the cycle error; 0 for none.
    """

    max_rounds: int = field(
        default=50, metadata={"label": "Most rounds over the models", "min": 1, "max": 1000}
    )
    max_sweeps: int = field(
        default=100, metadata={"label": "Most sweeps over the layers", "min": 1, "max": 1000}
    )
    restarts: int = field(
        default=3,
        metadata={"label": "Runs per pair; the best is kept", "min": 1, "max": 50},
    )
    steps: int = field(
        default=50, metadata={"label": "Most sweeps of Frank–Wolfe", "min": 0, "max": 1000}
    )
    cycle_models: int = field(
        default=5, metadata={"label": "Models among which cycles are closed", "min": 0, "max": 20}
    )


@dataclass(frozen=True)
class CycleError:
    """Shares of units that going round three models, from each to the next, takes elsewhere.

    Attributes:
        pairwise: Of weight matchings of every two models by themselves; NaN if there are fewer
            than three models, or it was not measured.
        result: Of the common order; 0, since all go through one order.
    """

    pairwise: float
    result: float


@dataclass(frozen=True)
class ManyResult:
    """A common order of several models.

    Attributes:
        permutations: One `{group: int64 [n]}` per model; `perm[i]` is its unit that plays the unit
            `i` of the first model, whose own are the identity.
        objective: Sum of inner products of all pairs of models, at the start and then per step.
        cycle_error: How far matchings of two models at a time contradict one another.
        converged: Whether the method stopped by itself.
        stopped: Whether the caller stopped it; the permutations are the best found until then.
        seconds: Wall-clock time, without that of the cycle error.
        kind: How the order was found.
        options: The options that were used.
        seed: The seed that was used.
    """

    permutations: tuple[Permutations, ...]
    objective: tuple[float, ...]
    cycle_error: CycleError
    converged: bool
    stopped: bool
    seconds: float
    kind: CommonOrderKind
    options: Mapping[str, Any]
    seed: int


def align_many(
    spec: PermutationSpec,
    model: nn.Module,
    states: Sequence[Mapping[str, Tensor]],
    kind: CommonOrderKind,
    *,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    on_progress: Progress | None = None,
) -> ManyResult:
    """Find one order of units for several models; their mean is a merged model.

    `"first"` matches every model to the first one's weights. `"merge many"` matches each, again
    and again, to the mean of the others (Ainsworth et al. 2023, Algorithm 3). `"cycle consistent"`
    climbs the same sum of inner products in all models at once, by Frank–Wolfe
    (Crisostomi et al. 2024), and then as `"merge many"` does.

    Args:
        spec: The permutation spec of the architecture.
        model: The architecture.
        states: State dicts; left as they are.
        kind: `"first"`, `"merge many"` or `"cycle consistent"`.
        seed: Seed of everything random.
        options: Options of `ManyOptions` by name; the rest have their defaults.
        on_progress: Called with `(done, total, note)`; if it raises `StoppedError`, the best
            orders so far are returned.

    Returns:
        One permutation per group and model, and how they were found.

    Raises:
        UnknownNameError: If there is no such kind or option.
        ArchitectureMismatchError: If the models do not fit; model and tensor are named.
        SymmetryError: If the spec does not fit the models.
        MergingError: If there are no models, or a weight is NaN or infinite.

    Example:
        >>> from merging import find_symmetry, load_pair
        >>> pair = load_pair("two-unit-counterexample")
        >>> spec = find_symmetry(pair.model, (pair.data.test.inputs[:2],))
        >>> found = align_many(spec, pair.model, [pair.params_a, pair.params_b], "merge many")
        >>> [perm.tolist() for perm in found.permutations[1].values()]
        [[1, 0], [1, 0]]
    """
    if kind not in _KINDS:
        raise UnknownNameError(f"unknown kind of order {kind!r}; choose from {', '.join(_KINDS)}")
    read: ManyOptions = read_record("An order for many models", ManyOptions, options)
    models = WideModels(spec, model, states)
    start = time.perf_counter()
    told = _Told(on_progress or ignore)
    orders, objective = [models.start for _ in states], [models.objective(models.states)]
    last = Reached(
        objective=objective[0], share=0.0, note="", orders=orders.copy, converged=len(models) == 1
    )
    for last in _KINDS[kind](models, read, seed):
        objective.append(last.objective)
        told(0.9 * last.share, last.note)
        if told.stopped:
            break
    orders = relative_to_first(spec, last.orders())
    if told.stopped:
        objective.append(models.objective(models.in_order(orders)))
    seconds = time.perf_counter() - start
    error = CycleError(_pairwise_error(models, read, seed, told), _own_error(spec, orders))
    return ManyResult(
        tuple(orders),
        tuple(objective),
        error,
        converged=last.converged,
        stopped=told.stopped,
        seconds=seconds,
        kind=kind,
        options=asdict(read),
        seed=seed,
    )


def relative_to_first(
    spec: PermutationSpec, orders: Sequence[Mapping[str, Tensor]]
) -> list[Permutations]:
    """Return the same common order, named by the units of the first model.

    Args:
        spec: The permutation spec.
        orders: One permutation per group and model, to any common order.

    Returns:
        New permutations; those of the first model are the identity.
    """
    back = invert_permutations(spec, orders[0])
    return [compose_permutations(spec, perms, back) for perms in orders]


def cycle_error(
    spec: PermutationSpec, pairs: Mapping[tuple[int, int], Mapping[str, Tensor]]
) -> float:
    """Return the share of units that do not come back from a way round three models.

    Args:
        spec: The permutation spec.
        pairs: For models `a < b`, the permutations whose `perm[i]` is b's unit that plays a's
            unit `i`.

    Returns:
        Mean over all triples `a < b < c` and all their units; NaN if there is no triple.
    """
    astray = units = 0
    for a, b, c in combinations(sorted({m for pair in pairs for m in pair}), 3):
        around = compose_permutations(spec, pairs[b, c], pairs[a, b])
        for group, perm in around.items():
            astray += int((perm != pairs[a, c][group]).sum())
            units += perm.numel()
    return astray / units if units else nan


class _Told:
    """Whoever watches, and whether they stopped the work."""

    def __init__(self, on_progress: Progress) -> None:
        self._on_progress = on_progress
        self.stopped = False

    def __call__(self, share: float, note: str) -> None:
        try:
            self._on_progress(share, 1.0, note)
        except StoppedError:
            self.stopped = True


def _to_first(models: WideModels, options: ManyOptions, seed: int) -> Iterator[Reached]:
    now = [models.start for _ in models.states]
    for k in range(1, len(models)):
        now[k] = _match(models, 0, k, options, seed)
        note = f"model {k + 1} of {len(models)} matched to the first"
        share, objective = k / (len(models) - 1), models.objective(models.in_order(now))
        yield Reached(
            objective=objective, share=share, note=note, orders=now.copy, converged=share == 1
        )


def _merge_many(models: WideModels, options: ManyOptions, seed: int) -> Iterator[Reached]:
    orders = [models.start for _ in models.states]
    rounds, sweeps = options.max_rounds, options.max_sweeps
    generator = torch.Generator().manual_seed(seed)
    return rise(models, orders, generator, max_rounds=rounds, max_sweeps=sweeps)


def _cycle_consistent(models: WideModels, options: ManyOptions, seed: int) -> Iterator[Reached]:
    rounds, sweeps = options.max_rounds, options.max_sweeps
    generator = torch.Generator().manual_seed(seed)
    return climb(models, generator, steps=options.steps, max_rounds=rounds, max_sweeps=sweeps)


_KINDS: Mapping[str, Callable[[WideModels, ManyOptions, int], Iterator[Reached]]] = (
    MappingProxyType({
        "first": _to_first,
        "merge many": _merge_many,
        "cycle consistent": _cycle_consistent,
    })
)


def _match(models: WideModels, a: int, b: int, options: ManyOptions, seed: int) -> Permutations:
    states, given = models.states, {"max_sweeps": options.max_sweeps, "restarts": options.restarts}
    return match(
        "weight", models.model, states[a], states[b], spec=models.spec, seed=seed, options=given
    ).permutations


def _pairwise_error(models: WideModels, options: ManyOptions, seed: int, told: _Told) -> float:
    """Return the cycle error of matchings of two models at a time; NaN where one is not made."""
    chosen = list(combinations(range(min(len(models), options.cycle_models)), 2))
    pairs = {}
    for a, b in chosen:
        if told.stopped or len(chosen) < 3:
            return nan
        pairs[a, b] = _match(models, a, b, options, seed)
        told(0.9 + 0.1 * len(pairs) / len(chosen), f"cycles: {len(pairs)} of {len(chosen)} pairs")
    return cycle_error(models.spec, pairs) if len(pairs) == len(chosen) else nan


def _own_error(spec: PermutationSpec, orders: Sequence[Mapping[str, Tensor]]) -> float:
    """Return the cycle error of the ways between models through their common order."""
    pairs = {
        (a, b): relative_to_first(spec, [orders[a], orders[b]])[1]
        for a, b in combinations(range(len(orders)), 2)
    }
    return cycle_error(spec, pairs) if len(orders) > 2 else 0.0
