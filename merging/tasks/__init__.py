"""How the pieces of requests are computed; runs in a worker (see `merging.jobs`).

One module per module of `merging.requests` (files of fusions have one of their own), each with the
table of its tasks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType

import torch

from merging import requests
from merging.jobs import Context
from merging.tasks import (
    alignments,
    curvatures,
    explanations,
    fusion,
    fusion_files,
    landscape,
    models,
    paths,
    regions,
)
from merging.tasks.base import Found, Task
from merging.tasks.border import guarded

TASKS: Mapping[str, Task] = MappingProxyType({
    **models.TASKS,
    **alignments.TASKS,
    **landscape.TASKS,
    **curvatures.TASKS,
    **fusion.TASKS,
    **fusion_files.TASKS,
    **explanations.TASKS,
    **paths.TASKS,
    **regions.TASKS,
})


def run_piece(payload: str, context: Context) -> Found:
    """Compute one piece of a request.

    Args:
        payload: JSON of the request and the part.
        context: The store, and whom to tell about progress.

    Returns:
        Arrays and JSON values, as the request's `decode` reads them.

    Raises:
        MergingError: If the request cannot be met; the message is for a person.
    """
    torch.set_num_threads(1)
    values = json.loads(payload)
    request = requests.from_payload(values["request"])
    with guarded(payload):
        return TASKS[request.task](request, values["part"], context)
