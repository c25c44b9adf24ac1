"""How the pieces of requests are computed; runs in a worker (see `results.compute.run_piece`).

One module per module of `results.requests` (files of fusions have one of their own). A task is a
function of the request, the part and the context; it returns a record, which the request encodes.
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

TASKS: Mapping[type[requests.Request[Any]], Task] = MappingProxyType({
    requests.SymmetryRequest: models.find_groups,
    requests.SpecRequest: models.prove_spec,
    requests.EndPointsRequest: models.evaluate_end_points,
    requests.DiagnosisRequest: models.diagnose,
    requests.ForecastRequest: models.forecast,
    requests.CheckpointRequest: models.read_checkpoint,
    requests.DataRequest: models.read_examples,
    requests.FitRequest: models.compare_tensors,
    requests.AlignmentRequest: alignment.align,
    requests.UnitsRequest: alignment.compare_units,
    requests.LayersRequest: alignment.compare_layers,
    requests.ExportRequest: alignment.write_file,
    requests.CurveRequest: landscape.evaluate_curve,
    requests.SurfaceRequest: landscape.evaluate_surface,
    requests.CurvatureRequest: curvature.take_curvature,
    requests.OrderRequest: fusion.line_up,
    requests.FusionRequest: fusion.fuse_and_judge,
    requests.ReferencesRequest: fusion.judge_reference,
    requests.ScanRequest: fusion.judge_value,
    requests.MixturesRequest: fusion.evaluate_mixtures,
    requests.FusionExportRequest: fusion_export.write_fused,
    requests.TaskVectorsRequest: explanations.compare_vectors,
    requests.ImpliedWeightsRequest: explanations.count_weights,
    requests.ErrorsRequest: explanations.split_errors,
    requests.RemovalRequest: explanations.take_out_task,
    requests.PathRequest: path.train_path,
    requests.PathCurveRequest: path.evaluate_path_curve,
    requests.SimplexRequest: regions.evaluate_mixtures,
    requests.SwagRequest: regions.sample_swag,
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
        entry = request.encode(TASKS[type(request)](request, values["part"], context))
    return entry.arrays, entry.meta
