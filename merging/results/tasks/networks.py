"""Rules of fusion that work on whole networks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from merging.files.checkpoints.lazy_params import Params
from merging.fusion import fuse
from merging.fusion.networks.distill import distill
from merging.fusion.networks.transport import fuse_by_transport
from merging.fusion.networks.zipit import zip_models
from merging.results import requests
from merging.results.compute.run_piece import Context
from merging.results.tasks.load_family import Members
from merging.results.uploads.load import certified
from merging.schema.errors import StoppedError


@dataclass(frozen=True, eq=False)
class Made:
    """What several models became.

    Attributes:
        heads: One state dict; or one per model, which have a trunk in common.
        notes: What is to be said of it.
        shared: Names of the tensors that all heads have in common, where there are several.
    """

    heads: tuple[Params, ...]
    notes: Mapping[str, Any]
    shared: frozenset[str] = frozenset()


NetworkRule = Callable[[requests.FusionRequest, Members, Sequence[Params], Context], Made]


def _zipped(
    request: requests.FusionRequest, members: Members, parents: Sequence[Params], context: Context
) -> Made:
    _, spec = certified(request.family.config, context.store)
    found = zip_models(
        spec,
        members.model,
        parents,
        members.training_examples(requests.SHOWN_EXAMPLES),
        options=json.loads(request.options),
        on_progress=context.report,
    )
    if len(found.heads) == 1:
        return Made(found.heads, {})
    notes = {"heads": len(found.heads), "tensors in common": len(found.shared)}
    return Made(found.heads, notes, found.shared)


def _transported(
    request: requests.FusionRequest, members: Members, parents: Sequence[Params], context: Context
) -> Made:
    configs = request.family.configs or (request.family.config,) * len(parents)
    found = fuse_by_transport(
        [network.model for network in members.networks],
        parents,
        [certified(config, context.store)[1] for config in configs],
        members.training_examples(requests.SHOWN_EXAMPLES),
        weights=request.weights or None,
        options=json.loads(request.options),
        on_progress=context.report,
    )
    return Made((found.params,), {})


def _distilled(
    request: requests.FusionRequest, members: Members, parents: Sequence[Params], context: Context
) -> Made:
    """Start at the mean of the (aligned) models, and learn on the training examples of all.

    Raises:
        StoppedError: If it was stopped.
    """
    found = distill(
        members.model,
        fuse("average", models=parents, weights=request.weights or None),
        parents,
        members.training_examples(sum(len(task.train) for task in members.tasks)),
        options=json.loads(request.options),
        seed=request.seed,
        on_progress=context.report,
    )
    if found.stopped:
        raise StoppedError("stopped as asked")
    return Made((found.params,), {"divergence": [found.loss[0], min(found.loss)]})


NETWORK_RULES: Mapping[str, NetworkRule] = MappingProxyType({
    "zipit": _zipped, "transport": _transported, "distillation": _distilled,
})  # fmt: skip
