"""Requests from their JSON: what a worker is handed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from merging.errors import UnknownNameError
from merging.requests.alignments import (
    AlignmentRequest,
    ExportRequest,
    LayersRequest,
    UnitsRequest,
)
from merging.requests.base import Request, Subject
from merging.requests.explanations import (
    ErrorsRequest,
    ImpliedWeightsRequest,
    RemovalRequest,
    TaskVectorsRequest,
)
from merging.requests.families import Examples, Family
from merging.requests.fusion import (
    CurvatureRequest,
    FusionExportRequest,
    FusionRequest,
    MixturesRequest,
    Moments,
    OrderRequest,
    ReferencesRequest,
    ScanRequest,
)
from merging.requests.landscape import CurveRequest, SurfaceRequest
from merging.requests.models import (
    CheckpointRequest,
    DataRequest,
    DiagnosisRequest,
    EndPointsRequest,
    FitRequest,
    ForecastRequest,
    SpecRequest,
    SymmetryRequest,
)
from merging.requests.paths import (
    PathCurveRequest,
    PathRequest,
)
from merging.requests.regions import (
    SimplexRequest,
    SwagRequest,
)

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
    """The request that has this payload.

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
