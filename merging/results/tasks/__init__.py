"""How the pieces of requests are computed; runs in a worker (see `results.compute.run_piece`).

One module per module of `results.requests` (files of fusions have one of their own), each with
the table of its tasks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from merging.results import requests
from merging.results.compute.run_piece import Context
from merging.results.tasks import (
    alignment,
    curvature,
    explanations,
    fusion,
    fusion_export,
    landscape,
    models,
    path,
    regions,
)
from merging.results.tasks.border import guarded
from merging.results.tasks.task import Task

TASKS: Mapping[str, Task] = MappingProxyType({
    **models.TASKS,
    **alignment.TASKS,
    **landscape.TASKS,
    **curvature.TASKS,
    **fusion.TASKS,
    **fusion_export.TASKS,
    **explanations.TASKS,
    **path.TASKS,
    **regions.TASKS,
})


def run_piece(payload: str, context: Context) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Compute one piece of a request.

    Args:
        payload: JSON of the request and the part.
        context: The store, and whom to tell about progress.

    Returns:
        What the request makes of the record that was found: arrays and JSON values.

    Raises:
        MergingError: If the request cannot be met; the message is for a person.
    """
    torch.set_num_threads(1)
    values = json.loads(payload)
    request = requests.from_payload(values["request"])
    with guarded(payload):
        entry = request.encode(TASKS[request.task](request, values["part"], context))
    return entry.arrays, entry.meta
