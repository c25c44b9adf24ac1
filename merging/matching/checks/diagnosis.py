"""Two models examined before they are matched, and the method tried where the answer is known.

Three questions that a person has who gets a poor result: is something wrong with these models; does
matching work on this architecture at all (a permutation of A itself is planted and looked for);
and what would chance look like (A is matched with a network that learned nothing)?
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from merging.files.checkpoints.lazy_params import Params
from merging.matching import match
from merging.models.graph.export import trace
from merging.models.graph.graph import Graph
from merging.models.graph.operators import operator_name
from merging.models.network import Network
from merging.models.state_dict import check_same_architecture, dot, floating, norm
from merging.schema.progress import Progress, ignore
from merging.schema.records.diagnosis import Diagnosis
from merging.symmetry.permutation import permute, random_permutations
from merging.symmetry.reorder import cut_cells, units_first
from merging.symmetry.spec import PermutationSpec

# Cosine of weights above which two models cannot have been initialised apart: independent ones
# have about 0 in as many dimensions as networks have.
SHARED_START = 0.25

_NORMS = {
    "batch_norm": "BatchNorm",
    "layer_norm": "LayerNorm",
    "group_norm": "GroupNorm",
    "instance_norm": "InstanceNorm",
    "rms_norm": "RMSNorm",
}


def examine(
    network: Network,
    spec: PermutationSpec,
    params_a: Mapping[str, Tensor],
    params_b: Mapping[str, Tensor],
    *,
    seed: int = 0,
    on_progress: Progress = ignore,
) -> Diagnosis:
    """Examine two models.

    Args:
        network: Their architecture.
        spec: Its certified permutation spec.
        params_a: State dict of model A.
        params_b: State dict of model B.
        seed: Seed of the planted permutation and of the untrained network.
        on_progress: Called between the examinations; may raise `StoppedError`.

    Returns:
        What was found.

    Raises:
        ArchitectureMismatchError: If the models do not fit.
        StoppedError: If `on_progress` raises it.
    """
    check_same_architecture(params_a, params_b)
    on_progress(0, 3, "a planted permutation")
    generator = torch.Generator().manual_seed(seed)
    planted = random_permutations(spec, generator)
    moved = permute(spec, planted, params_a)
    found = match("weight", network.model, params_a, moved, spec=spec, seed=seed)
    recovered, units = _recovered(permute(spec, found.permutations, moved), params_a, spec)
    on_progress(1, 3, "the two models")
    own = _matched_cosine(network.model, spec, params_a, params_b, seed)
    on_progress(2, 3, "a network that learned nothing")
    null = _matched_cosine(network.model, spec, params_a, fresh(params_b, generator), seed)
    cosine = weight_cosine(params_a, params_b)
    return Diagnosis(
        equal_share=equal_share(params_a, params_b),
        cosine=cosine,
        shared_start=cosine > SHARED_START,
        norms=_norms(trace(network.model, network.example_inputs)),
        dead_a=_dead(params_a, spec),
        dead_b=_dead(params_b, spec),
        units=units,
        recovered=recovered,
        sweeps=len(found.objective) - 1,
        matched_cosine=own,
        null_cosine=null,
    )


def equal_share(params_a: Mapping[str, Tensor], params_b: Mapping[str, Tensor]) -> float:
    """Return the share of the floating numbers that are equal in both models."""
    equal = sum(int((params_a[k] == params_b[k]).sum()) for k in floating(params_a))
    return equal / max(1, sum(params_a[k].numel() for k in floating(params_a)))


def weight_cosine(params_a: Mapping[str, Tensor], params_b: Mapping[str, Tensor]) -> float:
    """Return the cosine between the weights of two models, vectors such as biases left out."""
    return _cosine(_weights(params_a), _weights(params_b))


def fresh(params: Mapping[str, Tensor], generator: torch.Generator) -> Params:
    """Return a state dict that learned nothing: every tensor's numbers in a random order.

    Each tensor keeps its mean and spread, so that only what the network learned is gone.
    """
    shuffled: Params = {}
    for name, value in params.items():
        order = torch.randperm(value.numel(), generator=generator)
        shuffled[name] = value.reshape(-1)[order].reshape(value.shape)
    return shuffled


def _matched_cosine(
    model: nn.Module,
    spec: PermutationSpec,
    params_a: Mapping[str, Tensor],
    params_b: Mapping[str, Tensor],
    seed: int,
) -> float:
    found = match("weight", model, params_a, params_b, spec=spec, seed=seed)
    return _cosine(_weights(params_a), _weights(permute(spec, found.permutations, params_b)))


def _weights(params: Mapping[str, Tensor]) -> Params:
    """Keep matrices and kernels; vectors have means that are alike in unrelated networks."""
    return {name: params[name] for name in floating(params) if params[name].dim() > 1}


def _cosine(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    lengths = norm(a) * norm(b)
    return dot(a, b) / lengths if lengths else float("nan")


def _recovered(
    back: Mapping[str, Tensor], original: Mapping[str, Tensor], spec: PermutationSpec
) -> tuple[int, int]:
    """Count units that are back where they were, told by their weights, and units in all."""
    right = 0
    for group, shape in spec.shapes.items():
        same = torch.ones(math.prod(shape), dtype=torch.bool)
        pairs = zip(_rows(back, spec, group), _rows(original, spec, group), strict=True)
        for (_, a), (_, b) in pairs:
            same &= (a == b).all(1)
        right += int(same.sum())
    return right, spec.units


def _dead(params: Mapping[str, Tensor], spec: PermutationSpec) -> int:
    """Count units whose weights are all zero on one of their matrices: nothing enters or leaves."""
    dead = 0
    for group, shape in spec.shapes.items():
        none = torch.zeros(math.prod(shape), dtype=torch.bool)
        for name, rows in _rows(params, spec, group):
            if params[name].dim() > 1:
                none |= (rows == 0).all(1)
        dead += int(none.sum())
    return dead


def _rows(
    params: Mapping[str, Tensor], spec: PermutationSpec, group: str
) -> Iterator[tuple[str, Tensor]]:
    """Go through what belongs to the units of a group.

    Yields:
        Parameter and `[units, everything else]`, for every place of the group on it.
    """
    for name in dict.fromkeys(name for name, _ in spec.places()[group]):
        for cell, part in cut_cells(params[name], spec.axes[name]):
            for place, (_, atom) in enumerate(cell):
                if atom.group == group:
                    yield name, units_first(part, cell, place).flatten(0, 1)


def _norms(graph: Graph) -> tuple[str, ...]:
    kinds = [operator_name(step.node) for step in graph.steps]
    counts = Counter(_NORMS[kind] for kind in kinds if kind in _NORMS)
    return tuple(f"{count} × {name}" for name, count in counts.items())
