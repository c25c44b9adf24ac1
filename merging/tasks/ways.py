"""Ways to make one model of several that work on whole networks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from merging import requests
from merging.errors import StoppedError
from merging.fusion import Fused, fuse
from merging.fusion.distill import distill
from merging.fusion.transport import fuse_by_transport
from merging.fusion.zipit import zip_models
from merging.jobs import Context
from merging.members import Members
from merging.params import Params
from merging.subjects import certified

Way = Callable[[requests.FusionRequest, Members, Sequence[Params], Context], Fused]


def _zipped(
    request: requests.FusionRequest, members: Members, parents: Sequence[Params], context: Context
) -> Fused:
    _, spec = certified(request.family.config, context.store)
    found = zip_models(
        spec,
        members.model,
        parents,
        members.training_examples(requests.SHOWN_EXAMPLES),
        options=json.loads(request.options),
        on_progress=context.report,
    )
    return Fused(found.heads[0], {})


def _transported(
    request: requests.FusionRequest, members: Members, parents: Sequence[Params], context: Context
) -> Fused:
    _, spec = certified(request.family.config, context.store)
    found = fuse_by_transport(
        [members.model] * len(parents),
        parents,
        [spec] * len(parents),
        members.training_examples(requests.SHOWN_EXAMPLES),
        weights=request.weights or None,
        options=json.loads(request.options),
        on_progress=context.report,
    )
    return Fused(found.params, {})


def _distilled(
    request: requests.FusionRequest, members: Members, parents: Sequence[Params], context: Context
) -> Fused:
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
    return Fused(found.params, {"divergence": [found.loss[0], min(found.loss)]})


WAYS: Mapping[str, Way] = MappingProxyType({
    "zipit": _zipped, "transport": _transported, "distillation": _distilled,
})  # fmt: skip
