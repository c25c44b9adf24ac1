"""What can be asked for: one frozen record per kind of result, its key, and its pieces.

A request says what is computed from what, by fingerprint, and nothing else; the SHA-256 of its
canonical JSON is its key. This package needs no torch: the interface process makes requests and
reads results with it, and `merging.tasks` computes the pieces in a worker.
"""

from merging.requests.alignments import (
    LAYER_EXAMPLES,
    AlignmentRequest,
    Download,
    ExportRequest,
    LayersRequest,
    UnitsRequest,
    alignment,
)
from merging.requests.base import (
    SCHEMA,
    Request,
    Split,
    Statistics,
    Subject,
    bundled_subject,
    canonical,
)
from merging.requests.landscape import (
    CORRECTION_EXAMPLES,
    LEVEL_SIDES,
    SHOWN_EXAMPLES,
    CurveRequest,
    SurfaceRequest,
)
from merging.requests.models import (
    BroughtCheckpoint,
    BroughtData,
    CheckpointRequest,
    ChosenSpec,
    DataRequest,
    DiagnosisRequest,
    EndPointsRequest,
    FitRequest,
    ForecastRequest,
    SpecRequest,
    SymmetryRequest,
    TensorRow,
)
from merging.requests.payload import (
    KINDS,
    from_payload,
)

__all__ = [
    "CORRECTION_EXAMPLES",
    "KINDS",
    "LAYER_EXAMPLES",
    "LEVEL_SIDES",
    "SCHEMA",
    "SHOWN_EXAMPLES",
    "AlignmentRequest",
    "BroughtCheckpoint",
    "BroughtData",
    "CheckpointRequest",
    "ChosenSpec",
    "CurveRequest",
    "DataRequest",
    "DiagnosisRequest",
    "Download",
    "EndPointsRequest",
    "ExportRequest",
    "FitRequest",
    "ForecastRequest",
    "LayersRequest",
    "Request",
    "SpecRequest",
    "Split",
    "Statistics",
    "Subject",
    "SurfaceRequest",
    "SymmetryRequest",
    "TensorRow",
    "UnitsRequest",
    "alignment",
    "bundled_subject",
    "canonical",
    "from_payload",
]
