"""Requests from their JSON: what a worker is handed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from merging.results.requests.alignment import (
    AlignmentRequest,
    ExportRequest,
    LayersRequest,
    UnitsRequest,
)
from merging.results.requests.common_order import OrderRequest
from merging.results.requests.curvature import CurvatureRequest, Moments
from merging.results.requests.explanations import (
    ErrorsRequest,
    ImpliedWeightsRequest,
    RemovalRequest,
    TaskVectorsRequest,
)
from merging.results.requests.family import Examples, Family
from merging.results.requests.fusion import FusionExportRequest, FusionRequest, ReferencesRequest
from merging.results.requests.landscape import CurveRequest, SurfaceRequest
from merging.results.requests.mixtures import MixturesRequest
from merging.results.requests.models import (
    CheckpointRequest,
    DataRequest,
    DiagnosisRequest,
    EndPointsRequest,
    FitRequest,
    ForecastRequest,
    SpecRequest,
    SymmetryRequest,
)
from merging.results.requests.path import PathCurveRequest, PathRequest
from merging.results.requests.request import Request, Subject
from merging.results.requests.simplex import SimplexRequest
from merging.results.requests.swag import SwagRequest
from merging.results.requests.tuning import ScanRequest
from merging.schema.errors import UnknownNameError

KINDS: Mapping[str, type[Request[Any]]] = {
    kind.task: kind
    for kind in (
        SymmetryRequest,
        SpecRequest,
        EndPointsRequest,
        DiagnosisRequest,
        ForecastRequest,
        AlignmentRequest,
        CurveRequest,
        SurfaceRequest,
        PathRequest,
        PathCurveRequest,
        SimplexRequest,
        SwagRequest,
        UnitsRequest,
        LayersRequest,
        ExportRequest,
        CheckpointRequest,
        DataRequest,
        FitRequest,
        CurvatureRequest,
        OrderRequest,
        FusionRequest,
        ReferencesRequest,
        ScanRequest,
        MixturesRequest,
        FusionExportRequest,
        TaskVectorsRequest,
        ImpliedWeightsRequest,
        ErrorsRequest,
        RemovalRequest,
    )
}


def from_payload(payload: Mapping[str, Any]) -> Request[Any]:
    """Return the request that has this payload.

    Raises:
        UnknownNameError: If no kind of request has its task.
    """
    kind = KINDS.get(payload["task"])
    if kind is None:
        raise UnknownNameError(f"unknown task {payload['task']!r}; choose from {', '.join(KINDS)}")
    given = [f.name for f in fields(kind) if f.name in payload or "added" not in f.metadata]
    return kind(**{name: _value(payload[name], name) for name in given})


def _value(value: Any, name: str) -> Any:
    if name == "subject":
        return Subject(**value)
    if name == "family":
        return _family(value)
    if name == "moments":
        return Moments(**{key: _value(item, "") for key, item in value.items()})
    if isinstance(value, list):
        return tuple(_value(item, "") for item in value)
    return from_payload(value) if isinstance(value, dict) and "task" in value else value


def _family(value: Mapping[str, Any]) -> Family:
    given = {key: _value(item, key) for key, item in value.items() if key != "base_on"}
    given["tasks"] = tuple(Examples(**task) for task in value["tasks"])
    return Family(**given, base_on=Examples(**value["base_on"]) if value["base_on"] else None)
