"""Curvature of single models, and of all models of a family on one scale."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from merging.files.checkpoints.lazy_params import Params
from merging.fusion import diagonal_fisher, on_sum_scale
from merging.fusion.curvature.adam_moments import curvatures_from_moments
from merging.models.dtypes import widened
from merging.results import requests
from merging.results.compute.run_piece import Context
from merging.results.compute.store import Store
from merging.results.tasks.load_family import Members, ordered
from merging.results.tasks.task import Part
from merging.results.uploads.load import data_of, load_params, network_of
from merging.schema.cards.fusion.table import find_card
from merging.schema.errors import MergingError


def scaled_fishers(
    request: requests.FusionRequest, members: Members, store: Store
) -> tuple[list[Params], Params | None]:
    """Return the curvature on the scale of the sum over each model's own training examples.

    Units in another order have the curvature of the same units, so it is permuted with them.

    Args:
        request: What is fused; its curvatures were computed before.
        members: Its family.
        store: Where they are.

    Returns:
        The models' curvatures, with their other tensors as they are, and the base's.

    Raises:
        MergingError: If one was not computed before.
    """
    if request.moments is not None:
        return _from_moments(request.moments, request, members, store)
    scaled: list[Params] = []
    for one in request.curvatures():
        mean = one.read(store)
        if mean is None:
            raise MergingError("a curvature is missing; run the rule again")
        data = data_of(one.data, members.network, store)
        fisher = {name: torch.from_numpy(value) for name, value in mean.items()}
        scaled.append(on_sum_scale(fisher, len(data.train)))
    count = len(members.models)
    whole = [{**m, **f} for m, f in zip(members.models, scaled, strict=False)]
    return ordered(whole, request.order, store), scaled[count] if len(scaled) > count else None


def _from_moments(
    moments: requests.Moments, request: requests.FusionRequest, members: Members, store: Store
) -> tuple[list[Params], Params | None]:
    """Return Adam's second moments as curvatures; moved like `scaled_fishers`."""
    base = load_params(moments.base, store) if moments.base else None
    if not find_card(request.rule).needs_base_fisher:
        base = None  # it may have been trained otherwise, and then would not fit
    found = curvatures_from_moments(
        [load_params(moment, store) for moment in moments.models],
        members.models[0],
        base=base,
        scale=moments.scale,
    )
    pairs = zip(members.models, found.fishers or (), strict=True)
    whole = [{**params, **fisher} for params, fisher in pairs]
    own = None if found.base_fisher is None else dict(found.base_fisher)
    return ordered(whole, request.order, store), own


def take_curvature(
    request: requests.CurvatureRequest, part: Part, context: Context
) -> dict[str, NDArray[np.float32]]:
    """Take the diagonal Fisher of one model on one task's examples."""
    network = network_of(request.config, context.store)
    fisher = diagonal_fisher(
        network.model,
        widened(load_params(request.model, context.store)),
        data_of(request.data, network, context.store).train,
        labels=request.labels,
        examples=request.examples,
        seed=request.seed,
    )
    return {name: value.float().numpy() for name, value in fisher.items()}
