"""What a task finds comes back from the store as it was, for every kind of result."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from merging.results import requests
from merging.results.compute import entry as entries
from merging.results.requests.alignment import Download
from merging.results.requests.path import PathCurve
from merging.results.requests.payload import KINDS
from merging.schema.records.alignment import Alignment, GroupUnits, LayerRow
from merging.schema.records.common_order import CommonOrder
from merging.schema.records.curve import mean_curve
from merging.schema.records.diagnosis import Diagnosis, EndPoint, Forecast
from merging.schema.records.explanations import (
    ImpliedWeights,
    Removal,
    TaskVectorSummary,
    TensorErrors,
)
from merging.schema.records.scores import MergedScore, Mixtures, ScanPoint, TaskScore
from merging.schema.records.simplex import SimplexLoss
from merging.schema.records.surface import PlanePath, PlanePoint, SurfaceModels, SurfacePoints
from merging.schema.records.swag import SwagSamples
from merging.schema.records.symmetry import FrozenAxis, GroupCertificate, SymmetrySummary
from merging.schema.records.trained_path import StoredPath, TrainedPath

RANDOM = np.random.default_rng(0)
NAN = float("nan")
SUBJECT = requests.bundled_subject("digits-mlp-256")
FAMILY = requests.pair_family(SUBJECT)
WEIGHT = requests.alignment(SUBJECT, "weight")
PATH = requests.path(SUBJECT, WEIGHT, "bezier")
FUSION = requests.fusion(FAMILY, "average")
CORNERS = ("a", "b", WEIGHT)

CURVE = mean_curve(
    np.array([0.0, 0.5, 1.0]),
    RANDOM.random((3, 7), dtype=np.float32),
    RANDOM.random((3, 7)) > 0.5,
    statistics="RESET on 5 training examples",
    split="test",
)
TRAINED = TrainedPath(
    kind="bezier",
    history=(2.0, 1.0),
    converged=True,
    stopped=False,
    seconds=1.5,
    bends=1,
    length=1.1,
    distance=0.2,
    options={"steps": 3},
    seed=4,
)
POINT = PlanePoint(name="A", x=0.5, y=-1.0, residual=0.25)
SCORE = MergedScore(
    name="average",
    tasks=(
        TaskScore(
            examples=5,
            loss=0.5,
            loss_error=0.1,
            accuracy=NAN,
            accuracy_error=NAN,
            confidences=(0.5, NAN),
            rights=(0.25, NAN),
            counts=(5, 0),
        ),
    ),
    disagreement=(0.1, 0.2),
    distances=(1.0, 2.0),
    notes={"kept": [0, 2]},
)
# What a piece of every kind may find; where a kind has pieces of several forms, one of each.
FOUND = [
    (
        requests.SymmetryRequest(SUBJECT.config),
        SymmetrySummary(
            groups=(GroupCertificate("g", 3, ("w[0]", "b[0]")),),
            frozen=(FrozenAxis(parameter="w", axis=1, units=4, reason="why"),),
            unknown_operators=("aten.odd",),
            log10_orderings=1.5,
            max_relative_difference=1e-12,
            tolerance=1e-9,
            certified=True,
            share_moved=0.5,
            seconds=0.1,
            spec='{"w": ["g", null]}',
        ),
    ),
    (requests.SpecRequest(SUBJECT.config), requests.ChosenSpec("f" * 64, 2, 10)),
    (
        requests.EndPointsRequest(SUBJECT),
        {
            model: [
                EndPoint(
                    split="test", examples=5, loss=0.5, loss_standard_error=0.1, accuracy=accuracy
                )
            ]
            for model, accuracy in (("a", 0.9), ("b", NAN))
        },
    ),
    (
        requests.DiagnosisRequest(SUBJECT),
        Diagnosis(
            equal_share=0.0,
            cosine=0.1,
            shared_start=False,
            norms=("2 LayerNorm",),
            dead_a=1,
            dead_b=2,
            units=30,
            recovered=30,
            sweeps=3,
            matched_cosine=0.5,
            null_cosine=0.2,
        ),
    ),
    (
        requests.ForecastRequest(SUBJECT),
        Forecast(
            equal_share=0.0,
            cosine=0.1,
            shared_start=False,
            dtypes_a=("8 float32",),
            dtypes_b=("8 float16",),
            warnings=("B has half the digits.",),
            groups=3,
            largest_group=512,
            sweep_seconds=0.1,
            match_seconds=1.0,
            model_bytes=100,
            similarity_bytes=200,
            examples=0,
            points_per_second=NAN,
        ),
    ),
    (
        WEIGHT,
        Alignment(
            method="weight",
            permutations={"g": np.array([1, 0, 2]), "h": np.array([[0, 1], [1, 0]])},
            objective=(1.0, 2.0),
            objective_name="similarity",
            converged=True,
            stopped=False,
            seconds=0.5,
            restarts=(2.0, 1.5),
            options={"max_sweeps": 5},
            seed=3,
            max_relative_difference=1e-13,
        ),
    ),
    (requests.CurveRequest(SUBJECT), CURVE),
    (
        requests.SurfaceRequest(SUBJECT, CORNERS),
        SurfaceModels(
            (POINT,),
            (
                PlanePath(
                    kind="neb",
                    x=np.array([0.0, 1.0]),
                    y=np.array([1.0, 2.0]),
                    residual=np.array([0.0, 0.5]),
                ),
            ),
        ),
    ),
    (
        requests.SurfaceRequest(SUBJECT, CORNERS),
        SurfacePoints(
            cells=np.array([[0, 1], [2, 3]], dtype=np.int16),
            values=RANDOM.random((3, 2), dtype=np.float32),
            level=1,
            x=(-1.0, 1.0),
            y=(-2.0, 2.0),
            scale=3.0,
            examples=7,
            statistics="interpolated",
        ),
    ),
    (PATH, StoredPath(TRAINED)),
    (PATH, StoredPath(TRAINED, RANDOM.random((1, 9), dtype=np.float32), (0.0, 0.5, 1.0))),
    (requests.PathCurveRequest(SUBJECT, PATH), PathCurve(TRAINED, CURVE)),
    (
        requests.SimplexRequest(SUBJECT, CORNERS),
        SimplexLoss(
            names=("A", "B", "weight"),
            weights=np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]]),
            loss=np.array([0.5, np.inf]),
            accuracy=np.array([0.9, 0.1]),
            standard_error=np.array([0.1, np.nan]),
            resolution=requests.SIMPLEX_LEVELS[1],
            split="test",
            examples=7,
            statistics="interpolated",
        ),
    ),
    (
        requests.SwagRequest(SUBJECT, CORNERS),
        SwagSamples(
            around="A",
            points=(POINT, POINT),
            loss=np.array([0.5, 0.6]),
            accuracy=np.array([0.9, 0.8]),
            mean=POINT,
            snapshots=5,
            seconds=1.0,
            split="test",
            examples=7,
            statistics="interpolated",
        ),
    ),
    (
        requests.UnitsRequest(SUBJECT, WEIGHT),
        [
            GroupUnits(
                group="g",
                permutation=np.array([1, 0]),
                before=np.eye(2, dtype=np.int8),
                after=np.ones((2, 2), dtype=np.int8),
                block=1,
                matched=np.array([0.5, 0.6]),
                margin=np.array([0.1, 0.2]),
                fixed_points=0,
                cycles=(2,),
                parents=(1,),
            )
        ],
    ),
    (
        requests.LayersRequest(SUBJECT, WEIGHT),
        [
            LayerRow(
                layer="0",
                distance_before=2.0,
                distance_after=1.0,
                cosine_before=0.1,
                cosine_after=0.5,
            )
        ],
    ),
    (
        requests.ExportRequest(SUBJECT, WEIGHT, "aligned"),
        Download("b.safetensors", b"\x00\x01", ("8 tensors",)),
    ),
    (
        requests.CheckpointRequest("f" * 64, "mine.pt"),
        requests.UploadedCheckpoint(
            name="mine.pt",
            fingerprint="f" * 64,
            config="{}",
            tensors=8,
            parameters=100,
            notes=("The prefix 'module.' was cut off all names.",),
            prefix="module.",
        ),
    ),
    (
        requests.DataRequest(upload="f" * 64, name="mine.npz", config="{}"),
        requests.UploadedData(
            name="mine.npz", fingerprint="f" * 64, examples=5, classes=3, notes=("Halved.",)
        ),
    ),
    (
        requests.FitRequest(SUBJECT.model_a, SUBJECT.model_b),
        [
            requests.TensorRow(
                name="w", shape_a="2 × 3", shape_b="missing", verdict=requests.Verdict.DOES_NOT_FIT
            )
        ],
    ),
    (
        requests.CurvatureRequest(
            config="{}", model=SUBJECT.model_a, data="digits", data_fingerprint=""
        ),
        {"w": np.array([1.0, 2.0], dtype=np.float32), "b": np.zeros(1, dtype=np.float32)},
    ),
    (
        requests.OrderRequest(FAMILY),
        CommonOrder(
            permutations=({"g": np.array([0, 1])}, {"g": np.array([1, 0])}),
            objective=(1.0, 2.0),
            pairwise_cycle_error=NAN,
            cycle_error=0.0,
            seconds=0.5,
        ),
    ),
    (FUSION, SCORE),
    (requests.ReferencesRequest(FAMILY), SCORE),
    (
        requests.ScanRequest(requests.fusion(FAMILY, "average"), "weights", (0.1, 0.2)),
        ScanPoint(0.2, SCORE),
    ),
    (
        requests.MixturesRequest(FAMILY),
        Mixtures(
            steps=2,
            shares=np.array([[1.0, 0.0], [0.5, 0.5]]),
            loss=np.array([[0.5], [0.6]]),
            accuracy=np.array([[0.9], [0.8]]),
            split="validation",
        ),
    ),
    (requests.FusionExportRequest(FUSION), Download("merged.safetensors", b"\x02", ())),
    (
        requests.TaskVectorsRequest(FAMILY),
        TaskVectorSummary(
            norms=np.array([1.0, 2.0]),
            cosines=np.eye(2),
            conflicts=np.zeros((2, 2)),
            any_conflict=0.25,
            tensors=("w", "b"),
            contributions=np.full((2, 2), 0.5),
        ),
    ),
    (
        requests.ImpliedWeightsRequest(FUSION),
        ImpliedWeights(edges=np.array([0.0, 1.0]), counts=np.array([[3.0]]), means=np.array([0.5])),
    ),
    (
        requests.ErrorsRequest(FUSION),
        [
            TensorErrors(
                rule="average", tensor="w", measured=1.0, predicted=0.5, residual=0.1, bound=2.0
            )
        ],
    ),
    (
        requests.RemovalRequest(FAMILY, 0),
        [
            Removal(
                name="removal", scale=0.3, removed_accuracy=0.1, others_accuracy=0.9, clamped=NAN
            )
        ],
    ),
]


def through_bytes(entry):
    return entries.decode(entries.encode(entry.arrays, entry.meta), "a result")


def assert_same(one, other):
    """Same types and values all the way down; arrays by dtype, NaN equal to itself."""
    assert type(one) is type(other)
    if dataclasses.is_dataclass(one):
        for field in dataclasses.fields(one):
            assert_same(getattr(one, field.name), getattr(other, field.name))
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            assert_same(first, second)
    else:
        assert one == other or (one != one and other != other)


def test_every_kind_of_result_has_a_record_here():
    assert {request.task for request, _ in FOUND} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS.values(), ids=str)
def test_every_kind_has_its_own_pair(kind):
    assert "encode" in vars(kind)
    assert "decode" in vars(kind)


@pytest.mark.parametrize(
    ("request_", "found"), FOUND, ids=[f"{type(r).__name__}-{type(f).__name__}" for r, f in FOUND]
)
def test_what_is_found_comes_back_as_it_was(request_, found):
    assert_same(request_.decode(through_bytes(request_.encode(found))), found)


@pytest.mark.parametrize(("request_", "found"), FOUND, ids=[type(r).__name__ for r, _ in FOUND])
def test_an_entry_is_arrays_and_plain_json(request_, found):
    entry = request_.encode(found)
    assert all(isinstance(array, np.ndarray) for array in entry.arrays.values())
    json.dumps(entry.meta)
