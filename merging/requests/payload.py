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
        UnitsRequest,
        LayersRequest,
        ExportRequest,
        CheckpointRequest,
        DataRequest,
        FitRequest,
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
    if isinstance(value, list):
        return tuple(_value(item, "") for item in value)
    return from_payload(value) if isinstance(value, dict) else value
