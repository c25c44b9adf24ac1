"""The model that a fusion asks for: made, and asked; scores, scans and files all begin here."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from merging.files.checkpoints.lazy_params import Params
from merging.files.data.batches import Batches
from merging.fusion import fuse_with_notes, gram_matrices
from merging.landscape import reset
from merging.landscape.evaluate.predictions import ensemble, predict
from merging.models.state_dict import distance
from merging.results import requests
from merging.results.compute.run_piece import Context
from merging.results.compute.store import Store
from merging.results.tasks.curvature import scaled_fishers
from merging.results.tasks.load_family import Members, ordered
from merging.results.tasks.networks import NETWORK_RULES, Made
from merging.schema.cards.fusion.table import find_card
from merging.schema.errors import MergingError


@dataclass(frozen=True, eq=False)
class Merged:
    """A fused model, or several with a trunk in common, and what they were made of.

    Attributes:
        made: The model or models.
        parents: The models as they went in.
        seconds: How long the rule took.
    """

    made: Made
    parents: Sequence[Mapping[str, Tensor]]
    seconds: float

    @property
    def params(self) -> Params:
        """The fused model; the first one's, where every model has a head of its own."""
        return self.made.heads[0]

    @property
    def is_one(self) -> bool:
        """Whether one model came of it."""
        return len(self.made.heads) == 1

    @property
    def bytes(self) -> int:
        """Size of what must be kept; what heads have in common is kept once."""
        first, *others = self.made.heads
        own = [value for head in others for n, value in head.items() if n not in self.made.shared]
        return sum(value.nbytes for value in (*first.values(), *own))

    def outputs(self, members: Members, splits: Sequence[Batches]) -> list[Tensor]:
        """Return what is answered on every task.

        Where every model has a head of its own, the heads of the models that were trained on a
        task answer it (all heads, where none was), with the mean of their outputs.
        """
        found = []
        for task, batches in enumerate(splits):
            heads = self._answering(task, members.trained_on)
            outputs = [predict(members.model, head, batches) for head in heads]
            found.append(outputs[0] if len(heads) == 1 else ensemble(outputs, "logits"))
        return found

    def _answering(self, task: int, trained_on: Sequence[int]) -> list[Params]:
        heads = self.made.heads
        if self.is_one:
            return list(heads)
        own = [head for head, on in zip(heads, trained_on, strict=True) if on == task]
        return own or list(heads)

    def distances(self) -> tuple[float, ...]:
        """Return the L2 distance from every parent, of each head from its own.

        It is NaN for parents of other widths.
        """
        heads = self.made.heads * len(self.parents) if self.is_one else self.made.heads
        return tuple(_distance(*two) for two in zip(heads, self.parents, strict=True))


def _distance(params: Params, parent: Mapping[str, Tensor]) -> float:
    alike = all(value.shape == parent[name].shape for name, value in params.items())
    return distance(params, parent) if alike else math.nan


def merge(request: requests.FusionRequest, members: Members, context: Context) -> Merged:
    """Make what a fusion asks for.

    Args:
        request: The fusion; what it needs was computed before.
        members: Its family.
        context: The store, and whom to tell about progress.

    Returns:
        The model.

    Raises:
        MergingError: If the rule lacks something, or cannot be applied.
    """
    card = find_card(request.rule)
    lacking = requests.lacking(card, request.family, request.moments)
    if lacking:
        raise MergingError(f"{card.title} {lacking}; choose another rule")
    parents = ordered(members.models, request.order, context.store)
    start = time.perf_counter()
    if card.on_networks:
        made = NETWORK_RULES[request.rule](request, members, parents, context)
    else:
        needs = _needs(request, members, parents, context.store)
        start = time.perf_counter()  # what a rule needs was not made by the rule
        made = _fused(request, members, parents, needs)
    seconds = time.perf_counter() - start
    if request.statistics == "reset":
        examples = members.training_examples(requests.SHOWN_EXAMPLES)
        heads = tuple(reset(members.model, head, examples) for head in made.heads)
        made = Made(heads, made.notes, made.shared)
    return Merged(made, parents, seconds)


def _fused(
    request: requests.FusionRequest,
    members: Members,
    parents: Sequence[Params],
    needs: Mapping[str, Any],
) -> Made:
    found = fuse_with_notes(
        request.rule,
        models=parents,
        base=members.base,
        weights=request.weights or None,
        options=json.loads(request.options),
        seed=request.seed,
        **needs,
    )
    return Made((found.params,), found.notes)


def _needs(
    request: requests.FusionRequest, members: Members, parents: Sequence[Params], store: Store
) -> dict[str, Any]:
    """Return what a rule works with beside the models."""
    card = find_card(request.rule)
    needs: dict[str, Any] = {}
    if card.needs_fishers:
        needs["fishers"], needs["base_fisher"] = scaled_fishers(request, members, store)
    if card.needs_grams:
        needs["grams"] = [
            gram_matrices(
                members.model,
                params,
                members.own_data(k).train,
                examples=requests.CURVATURE_EXAMPLES,
            )
            for k, params in enumerate(parents)
        ]
    if card.needs_data:
        needs |= {"model": members.model, "batches": members.validation()}
    if card.needs_sizes:
        needs["sizes"] = members.sizes
    return needs
