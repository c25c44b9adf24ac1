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
    DataRequest,
    DiagnosisRequest,
    EndPointsRequest,
    FitRequest,
    SymmetryRequest,
    TensorRow,
)
from merging.requests.paths import (
    PATH_POSITIONS,
    Corner,
    PathCurve,
    PathCurveRequest,
    PathRequest,
    corner_names,
    path,
)
from merging.requests.payload import (
    KINDS,
    from_payload,
)
from merging.requests.regions import (
    SIMPLEX_SIDES,
    SimplexRequest,
    SwagRequest,
    read_simplex,
    simplex_parts,
    simplex_piece_key,
    swag,
)

__all__ = [
    "CORRECTION_EXAMPLES",
    "KINDS",
    "LAYER_EXAMPLES",
    "LEVEL_SIDES",
    "PATH_POSITIONS",
    "SCHEMA",
    "SHOWN_EXAMPLES",
    "SIMPLEX_SIDES",
    "AlignmentRequest",
    "BroughtCheckpoint",
    "BroughtData",
    "CheckpointRequest",
    "Corner",
    "CurveRequest",
    "DataRequest",
    "DiagnosisRequest",
    "Download",
    "EndPointsRequest",
    "ExportRequest",
    "FitRequest",
    "LayersRequest",
    "PathCurve",
    "PathCurveRequest",
    "PathRequest",
    "Request",
    "SimplexRequest",
    "Split",
    "Statistics",
    "Subject",
    "SurfaceRequest",
    "SwagRequest",
    "SymmetryRequest",
    "TensorRow",
    "UnitsRequest",
    "alignment",
    "bundled_subject",
    "canonical",
    "corner_names",
    "from_payload",
    "path",
    "read_simplex",
    "simplex_parts",
    "simplex_piece_key",
    "swag",
]
