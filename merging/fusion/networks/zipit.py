"""Zipping models together, unit by unit (ZipIt!; Stoica et al. 2024, arXiv 2305.03053).

Units of all models stand side by side, `N n` of them, and the two that correlate most on examples
are put together until `n` are left, be they of two models or of one. A merged unit is the mean of
those that went into it (`M`), and whatever read one of them reads it in their place (`U`):

    W* = sum over models of M_m[out] W_m U_m[in].

If all pairs are of two models, this is a permutation and a mean.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from merging.files.checkpoints.lazy_params import Params
from merging.files.data.batches import BatchesLike
from merging.fusion.networks.axis_roles import Role, find_roles
from merging.fusion.networks.unit_features import ExaminedModel, find_derivation, stream_features
from merging.matching.search.soft_permutation import mix_axis
from merging.models.state_dict import check_same_architecture
from merging.schema.cards.fusion.networks import ZipOptions
from merging.schema.errors import MergingError
from merging.schema.options import read_record
from merging.schema.progress import Progress
from merging.symmetry.spec import PermutationSpec

Plans = dict[str, Tensor]

# Correlations that are closer than this are equal, and a pair of two models comes first.
_TIE = 1e-7


@dataclass(frozen=True, eq=False)
class ZipResult:
    """Models that were zipped together.

    Attributes:
        heads: One state dict if all was zipped. If only a part was, one per model: the zipped
            tensors are the same in all, the others are each model's own.
        clusters: Per zipped group, int64 `[models, n]`: the merged unit that each unit went into.
        shared: Names of the tensors that all heads share.
        seconds: Wall-clock time.
    """

    heads: tuple[Params, ...]
    clusters: Mapping[str, Tensor]
    shared: frozenset[str]
    seconds: float

    def share_within(self, group: str) -> float:
        """Return the share of a group's merged units that hold two units or more of one model."""
        labels = self.clusters[group]
        n = labels.shape[1]
        counts = torch.stack([torch.bincount(row, minlength=n) for row in labels])
        return float((counts > 1).any(0).double().mean())


def zip_models(
    spec: PermutationSpec,
    model: nn.Module,
    states: Sequence[Mapping[str, Tensor]],
    batches: BatchesLike,
    *,
    groups: Collection[str] | None = None,
    options: Mapping[str, Any] | None = None,
    on_progress: Progress | None = None,
) -> ZipResult:
    """Zip models of one architecture into one of the same size, or up to a layer only.

    Args:
        spec: The permutation spec of the architecture.
        model: The architecture.
        states: State dicts of the models; left as they are.
        batches: Examples to compare the units on; training inputs, without labels.
        groups: Which groups to zip, from the input on; by default what the option `depth` says,
            or all, and the outputs are averaged too.
        options: Options of `ZipOptions` by name.
        on_progress: Called after every batch; may raise `StoppedError`.

    Returns:
        The merged model, or one head per model above a common trunk.

    Raises:
        MergingError: If there are no models, a group is not plain (`fusion.roles`), what makes a
            zipped group reads one that is not, there are fewer groups than `depth`, or both
            `groups` and `depth` are given.
        UnknownNameError: If there is no such option.
        ArchitectureMismatchError: If the models do not fit.
        SymmetryError: If the spec does not fit them.
        DataError: If there are no examples.
        StoppedError: If `on_progress` raises it.
    """
    start = time.perf_counter()
    read: ZipOptions = read_record("Zipping", ZipOptions, options)
    if not states:
        raise MergingError("there are no models to zip; give two or more state dicts")
    for state in states:
        check_same_architecture(states[0], state)
        spec.check(state)
    subjects = [ExaminedModel(model, spec, state) for state in states]
    roles = find_roles(find_derivation(subjects[0], batches)[0], spec)
    groups = _up_to(spec, read.depth, groups) if read.depth else groups
    zipped = _chosen(spec, roles, groups)
    features = stream_features(subjects, batches, on_progress)
    clusters: dict[str, Tensor] = {}
    for group in zipped:
        if group not in features:
            raise MergingError(
                f"no activation of the model shows the units of {group!r} alone; leave it out"
            )
        sites = [moments.correlation() for moments in features[group]]
        similarity = sum(sites, torch.zeros(())) / len(sites)
        clusters[group] = zip_units(similarity.numpy(), len(states), read)
    heads, shared = _fused(spec, roles, states, clusters, whole=groups is None)
    return ZipResult(
        heads=heads, clusters=clusters, shared=shared, seconds=time.perf_counter() - start
    )


def zip_units(similarity: NDArray[np.float64], models: int, options: ZipOptions) -> Tensor:
    """Put the most similar units together until as many are left as one model has.

    Args:
        similarity: `[models * n, models * n]`, units of all models side by side.
        models: Number of models.
        options: Options.

    Returns:
        int64 `[models, n]`: the merged unit of every unit, numbered by their first.

    Example:
        >>> near = np.array([[1, 0.9, 0.2, 0], [0.9, 1, 0, 0], [0.2, 0, 1, 0.8], [0, 0, 0.8, 1]])
        >>> zip_units(near, 2, ZipOptions()).tolist()
        [[0, 0], [1, 1]]
        >>> zip_units(near, 2, ZipOptions(within=0.0)).tolist()
        [[0, 1], [0, 1]]
    """
    count = len(similarity)
    n = count // models
    scores = np.array(similarity, dtype=np.float64)
    scores[np.tril_indices(count)] = -np.inf
    scores = np.maximum(scores, scores.T)
    owners = np.repeat(np.eye(models, dtype=bool), n, axis=0)
    scores -= _TIE * (owners.astype(np.float64) @ owners.T)
    labels = np.arange(count)
    budget = round(options.within * (count - n))
    for _ in range(count - n):
        i, j, inner = _best_pair(scores, owners, inner_left=budget > 0)
        budget -= inner
        scores[i] = options.damping * np.minimum(scores[i], scores[j])
        scores[:, i] = scores[i]
        scores[i, i] = -np.inf
        scores[j] = scores[:, j] = -np.inf
        owners[i] |= owners[j]
        labels[labels == j] = i
    return torch.from_numpy(np.unique(labels, return_inverse=True)[1].reshape(models, n))


def multi_head(model: nn.Module, result: ZipResult) -> nn.Module:
    """Return a module with a common trunk and one head per model.

    Args:
        model: The architecture; left as it is.
        result: What `zip_models` gave for some groups.

    Returns:
        A module that maps inputs to `[heads, n, ...]`. The trunk's parameters are shared, so
        they are stored and trained once; they are computed once per head.
    """
    return _MultiHead(model, result)


class _MultiHead(nn.Module):
    def __init__(self, model: nn.Module, result: ZipResult) -> None:
        super().__init__()
        self.heads = nn.ModuleList(deepcopy(model) for _ in result.heads)
        for head, state in zip(self.heads, result.heads, strict=True):
            head.load_state_dict(state)
        trunk = dict(self.heads[0].named_parameters())
        for head in self.heads:
            for name in result.shared & set(trunk):
                owner, _, own = name.rpartition(".")
                setattr(head.get_submodule(owner), own, trunk[name])

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs to the outputs of all heads, `[heads, n, ...]`."""
        return torch.stack([head(x) for head in self.heads])


def _best_pair(
    scores: NDArray[np.float64], owners: NDArray[np.bool_], *, inner_left: bool
) -> tuple[int, int, bool]:
    """Return the most similar two sets, and whether a model has units in both."""
    allowed = scores
    if not inner_left:
        apart = (owners.astype(np.int64) @ owners.T) == 0
        allowed = np.where(apart, scores, -np.inf)
        if not np.isfinite(allowed).any():  # no two sets are apart any more
            allowed = scores
    i, j = sorted(divmod(int(allowed.argmax()), len(scores)))
    return i, j, bool((owners[i] & owners[j]).any())


def _up_to(spec: PermutationSpec, depth: int, groups: Collection[str] | None) -> list[str]:
    """Return the first groups of a spec, which has them in the order of the network.

    Raises:
        MergingError: If there are fewer, or groups were named too.
    """
    if groups is not None:
        raise MergingError("give the groups to zip, or how many of them (`depth`), not both")
    if depth > len(spec.sizes):
        raise MergingError(
            f"{depth} groups cannot be zipped: the network has {len(spec.sizes)}, "
            f"{', '.join(spec.sizes)}"
        )
    return list(spec.sizes)[:depth]


def _chosen(
    spec: PermutationSpec,
    roles: Mapping[str, tuple[Role | None, ...]],
    groups: Collection[str] | None,
) -> list[str]:
    if groups is None:
        return list(spec.sizes)
    for group in groups:
        if group not in spec.sizes:
            raise MergingError(f"the spec has no group {group!r}; it has {', '.join(spec.sizes)}")
    for name, own in roles.items():
        made, read = (_with_role(spec, name, own, role) for role in ("makes", "reads"))
        missing = sorted(read - set(groups))
        if made & set(groups) and missing:
            raise MergingError(
                f"{sorted(made)[0]!r} cannot be zipped: {name!r} makes it from {missing[0]!r}, "
                "which is not zipped. Zip all groups from the input up to a layer"
            )
    return [group for group in spec.sizes if group in groups]


def _with_role(
    spec: PermutationSpec, name: str, roles: tuple[Role | None, ...], role: str
) -> set[str]:
    axes = zip(spec.axes[name], roles, strict=True)
    return {group for expression, own in axes if own == role for group in expression.groups}


def _fused(
    spec: PermutationSpec,
    roles: Mapping[str, tuple[Role | None, ...]],
    states: Sequence[Mapping[str, Tensor]],
    clusters: Mapping[str, Tensor],
    *,
    whole: bool,
) -> tuple[tuple[Params, ...], frozenset[str]]:
    plans = [_plans(clusters, m) for m in range(len(states))]
    heads: list[Params] = [{} for _ in states]
    shared: set[str] = set()
    for name, first in states[0].items():
        own = roles.get(name, ())
        made = bool(_with_role(spec, name, own, "makes") & set(clusters)) if own else False
        parts = [
            _moved(state[name], spec, name, own, *plan)
            if first.is_floating_point()
            else state[name]
            for state, plan in zip(states, plans, strict=True)
        ]
        if (made or whole) and first.is_floating_point():
            total = sum(parts, torch.zeros(())) / (1 if made else len(states))
            parts = [total] * len(states)
        if made or whole:
            shared.add(name)
        for head, part in zip(heads, parts, strict=True):
            head[name] = part.to(first.dtype, copy=True)
    return tuple(heads[:1] if whole else heads), frozenset(shared)


def _plans(clusters: Mapping[str, Tensor], m: int) -> tuple[Plans, Plans]:
    """Return `M` and `U` of one model, each `[n merged, n]`."""
    merge: Plans = {}
    unmerge: Plans = {}
    for group, labels in clusters.items():
        n = labels.shape[1]
        into = torch.nn.functional.one_hot(labels[m], n).double().T
        unmerge[group] = into
        merge[group] = into / torch.bincount(labels.flatten(), minlength=n)[:, None]
    return merge, unmerge


def _moved(
    value: Tensor,
    spec: PermutationSpec,
    name: str,
    roles: tuple[Role | None, ...],
    merge: Plans,
    unmerge: Plans,
) -> Tensor:
    value = value.detach().double()
    for axis, role in enumerate(roles):
        plans = merge if role == "makes" else unmerge
        value = mix_axis(value, axis, spec.axes[name][axis], plans)
    return value
