"""Fusion by optimal transport (Singh & Jaggi 2020, arXiv 1910.05653), also of other widths.

Units of a model are carried to those of the first, layer by layer from the input on. With `n` units
in the first model and `m` in the other, the plan `T [n, m]` carries weights `1 / n` to weights
`1 / m` at the least cost. What makes a unit becomes a mean, with `n T`, whose rows sum to 1; what
reads one is shared out with `m T`, whose columns sum to 1:

    W' = (n T)[out] W (m T)[in]ᵀ,        fused = sum over models of w W' / sum of w.

Between equal numbers of units an exact plan is a permutation.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from merging.files.checkpoints.lazy_params import Params
from merging.files.data.batches import BatchesLike
from merging.fusion.networks.axis_roles import Role, find_roles
from merging.fusion.networks.unit_features import (
    ExaminedModel,
    JointMoments,
    find_derivation,
    stream_features,
)
from merging.matching.search.assignment import solve_transport
from merging.matching.search.soft_permutation import mix_axis
from merging.matching.search.weight_similarity import units_first
from merging.schema.cards.fusion.networks import TransportOptions
from merging.schema.errors import ArchitectureMismatchError, MergingError
from merging.schema.options import read_record
from merging.schema.progress import Progress, ignore
from merging.symmetry.spec import PermutationSpec

_SINKHORN_ROUNDS = 2000
_SINKHORN_ERROR = 1e-6


@dataclass(frozen=True, eq=False)
class TransportResult:
    """A model that several were fused into.

    Attributes:
        params: State dict of the first model's architecture and types.
        aligned: State dicts of all models, in that architecture.
        plans: Per model after the first: `{group: float64 [n, m]}`, `n` units of the first model,
            `m` of the other.
        costs: Per model after the first, what its plans cost: `{group: mean distance}`.
        seconds: Wall-clock time.
    """

    params: Params
    aligned: tuple[Params, ...]
    plans: tuple[Mapping[str, Tensor], ...]
    costs: tuple[Mapping[str, float], ...]
    seconds: float


def fuse_by_transport(
    models: Sequence[nn.Module],
    states: Sequence[Mapping[str, Tensor]],
    specs: Sequence[PermutationSpec],
    batches: BatchesLike,
    *,
    weights: Sequence[float] | None = None,
    options: Mapping[str, Any] | None = None,
    on_progress: Progress | None = None,
) -> TransportResult:
    """Fuse models that differ at most in widths into the first one's architecture.

    Args:
        models: One architecture per model; the same module may stand for several.
        states: Their state dicts; left as they are.
        specs: Their permutation specs; groups are told by their names.
        batches: Examples: with `features="activations"` to compare units on, else for shapes.
        weights: Share of every model; by default equal.
        options: Options of `TransportOptions` by name.
        on_progress: Called with groups done and groups in all; may raise `StoppedError`.

    Returns:
        The fused model, and how units were carried.

    Raises:
        ArchitectureMismatchError: If models differ in more than widths; the tensor is named.
        MergingError: If numbers of arguments do not fit, a group is not plain (`fusion.roles`), or
            its units are told apart by nothing.
        UnknownNameError: If there is no such option.
        SymmetryError: If a spec does not fit its model.
        DataError: If there are no examples.
        StoppedError: If `on_progress` raises it.
    """
    start = time.perf_counter()
    read: TransportOptions = read_record("Fusion by transport", TransportOptions, options)
    shares = _shares(len(models), len(states), len(specs), weights)
    subjects = [ExaminedModel(*three) for three in zip(models, specs, states, strict=True)]
    for subject in subjects:
        subject.spec.check(subject.params)
    roles = find_roles(find_derivation(subjects[0], batches)[0], specs[0])
    for k, other in enumerate(subjects[1:]):
        _check_alike(subjects[0], other, k + 2)
    tell = on_progress or ignore
    carriers = [
        _Carrier(subjects[0], other, roles, read, _distances(subjects[0], other, read, batches))
        for other in subjects[1:]
    ]
    total = len(specs[0].sizes) * len(carriers)
    for k, carrier in enumerate(carriers):
        for done, group in enumerate(carrier.carry()):
            tell(k * len(specs[0].sizes) + done + 1, total, f"model {k + 2}: units of {group!r}")
    aligned = [dict(states[0]), *(carrier.aligned() for carrier in carriers)]
    params = {name: _mean([a[name] for a in aligned], shares) for name in states[0]}
    plans, costs = tuple(c.plans for c in carriers), tuple(c.costs for c in carriers)
    return TransportResult(
        params=params,
        aligned=tuple(aligned),
        plans=plans,
        costs=costs,
        seconds=time.perf_counter() - start,
    )


def soft_plan(costs: Tensor, entropy: float) -> Tensor:
    """Return the transport plan of uniform weights with an entropy term, by Sinkhorn's iteration.

    Args:
        costs: `[n, m]`.
        entropy: Weight of the entropy, in mean costs; above 0.

    Returns:
        float64 `[n, m]`; columns sum to `1 / m`, and rows to `1 / n` within a part in a million,
        or as near as 2,000 rounds get them where the entropy is very small.

    Example:
        >>> soft_plan(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), 10.0).round(decimals=1).tolist()
        [[0.3, 0.2], [0.2, 0.3]]
    """
    scaled = -costs.double() / (entropy * costs.double().mean()).clamp_min(1e-300)
    n, m = costs.shape
    log_n, log_m = -torch.tensor(n).double().log(), -torch.tensor(m).double().log()
    across = torch.zeros(m, dtype=torch.float64)
    for _ in range(_SINKHORN_ROUNDS):
        down = log_n - torch.logsumexp(scaled + across, 1)
        across = log_m - torch.logsumexp(scaled + down[:, None], 0)
        plan = (scaled + down[:, None] + across).exp()
        if float((plan.sum(1) * n - 1).abs().max()) < _SINKHORN_ERROR:
            break
    return plan


class _Carrier:
    """The plans of one model, found from the input on."""

    def __init__(
        self,
        first: ExaminedModel,
        other: ExaminedModel,
        roles: Mapping[str, tuple[Role | None, ...]],
        options: TransportOptions,
        distances: Mapping[str, Tensor] | None,
    ) -> None:
        self._first, self._other = first, other
        self._roles, self._options, self._distances = roles, options, distances
        trained = dict(first.model.named_parameters(remove_duplicate=False))
        self._makers = {
            group: [
                name for name, axis in places if roles[name][axis] == "makes" and name in trained
            ]
            for group, places in first.spec.places().items()
        }
        self.plans: dict[str, Tensor] = {}
        self.costs: dict[str, float] = {}

    def carry(self) -> list[str]:
        """Find the plans of all groups; their names in the order in which they were found."""
        waiting = list(self._first.spec.sizes)
        found = []
        while waiting:
            group = max(waiting, key=self._readiness)  # of equals, the first
            waiting.remove(group)
            costs = self._costs(group)
            entropy = self._options.entropy
            self.plans[group] = soft_plan(costs, entropy) if entropy else solve_transport(costs)
            self.costs[group] = float((self.plans[group] * costs).sum())
            found.append(group)
        return found

    def aligned(self) -> Params:
        """Return the other model in the first one's architecture and types."""
        moved = {}
        for name, own in self._first.params.items():
            value = self._other.params[name]
            if not own.is_floating_point():
                moved[name] = value.clone()
                continue
            moved[name] = self._moved(name).to(own.dtype)
        return moved

    def _moved(self, name: str, keep: str | None = None) -> Tensor:
        """Return a tensor of the other model with its units carried; those of `keep` stay."""
        value = self._other.params[name].detach().to("cpu", torch.float64)
        for axis, role in enumerate(self._roles.get(name, ())):
            plans = {
                group: plan * plan.shape[0 if role == "makes" else 1]
                for group, plan in self.plans.items()
                if group != keep
            }
            value = mix_axis(value, axis, self._other.spec.axes[name][axis], plans)
        return value

    def _readiness(self, group: str) -> float:
        """Return the share of tensors that make a group whose own inputs are carried already."""
        makers = self._makers[group]
        return sum(self._is_ready(name, group) for name in makers) / max(1, len(makers))

    def _is_ready(self, name: str, group: str) -> bool:
        around = {g for e in self._first.spec.axes[name] for g in e.groups} - {group}
        reads_itself = any(
            role == "reads" and group in expression.groups
            for role, expression in zip(self._roles[name], self._first.spec.axes[name], strict=True)
        )
        return not reads_itself and around <= set(self.plans)

    def _costs(self, group: str) -> Tensor:
        """Return the distances `[n, m]` of the first model's units and the other's.

        Raises:
            MergingError: If nothing tells the units apart.
        """
        if self._distances is not None:
            if group not in self._distances:
                raise MergingError(
                    f"no activation shows the units of {group!r} alone; use features='weights'"
                )
            return self._distances[group]
        ready = [name for name in self._makers[group] if self._is_ready(name, group)]
        if not ready:
            raise MergingError(
                f"the units of {group!r} are made from units that come later in the network, so "
                "their weights cannot be compared; use features='activations'"
            )
        ours = [
            self._rows(self._first.params[name], self._first.spec, name, group) for name in ready
        ]
        theirs = [
            self._rows(self._moved(name, keep=group), self._other.spec, name, group)
            for name in ready
        ]
        return torch.cdist(torch.cat(ours, 1), torch.cat(theirs, 1))

    def _rows(self, value: Tensor, spec: PermutationSpec, name: str, group: str) -> Tensor:
        value = value.detach().to("cpu", torch.float64)
        return torch.cat(
            [
                rows
                for axis, expression in enumerate(spec.axes[name])
                if self._roles[name][axis] == "makes"
                for rows in units_first(value, axis, expression, group)
            ],
            1,
        )


def _distances(
    first: ExaminedModel, other: ExaminedModel, options: TransportOptions, batches: BatchesLike
) -> dict[str, Tensor] | None:
    """Return root mean squared differences of outputs, `[n, m]` per group; None for weights."""
    if options.features == "weights":
        return None
    sizes = first.spec.sizes
    return {
        group: _across(moments, sizes[group])
        for group, moments in stream_features([first, other], batches).items()
    }


def _across(moments: Sequence[JointMoments], n: int) -> Tensor:
    squares = [m.squared_distances()[:n, n:] for m in moments]
    return (sum(squares, torch.zeros(())) / len(squares)).sqrt()


def _shares(models: int, states: int, specs: int, weights: Sequence[float] | None) -> list[float]:
    if not models or not models == states == specs:
        raise MergingError(
            f"got {models} models, {states} state dicts and {specs} specs; give one of each"
        )
    given = [1.0] * models if weights is None else [float(w) for w in weights]
    if len(given) != models or not sum(given):
        raise MergingError(
            f"got the weights {given} for {models} models; give one each that do not add up to 0"
        )
    return [w / sum(given) for w in given]


def _check_alike(first: ExaminedModel, other: ExaminedModel, number: int) -> None:
    """Make sure that two models differ at most in widths.

    Raises:
        ArchitectureMismatchError: If they do not; the tensor is named.
    """
    odd = sorted(set(first.params) ^ set(other.params))
    if odd:
        raise ArchitectureMismatchError(
            f"model 1 and model {number} have different tensors ({odd[0]!r} for one); models that "
            "differ in widths only can be fused"
        )
    for name, value in first.params.items():
        ours = first.spec.axes.get(name, (None,) * value.dim())
        theirs = other.spec.axes.get(name, (None,) * other.params[name].dim())
        same = len(ours) == len(theirs) and all(
            (a.groups if a else ()) == (b.groups if b else ()) and ((a and a.groups) or n == m)
            for a, b, n, m in zip(ours, theirs, value.shape, other.params[name].shape, strict=True)
        )
        if not same:
            raise ArchitectureMismatchError(
                f"{name!r} is {list(value.shape)} in model 1 and "
                f"{list(other.params[name].shape)} in model {number}, and not only hidden widths "
                "differ; models that differ in hidden widths only can be fused"
            )


def _mean(tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    first = tensors[0]
    if not first.is_floating_point():
        return first.clone()
    total = sum(
        (w * t.detach().double() for w, t in zip(shares, tensors, strict=True) if w),
        torch.zeros((), dtype=torch.float64),
    )
    return total.to(first.dtype)
