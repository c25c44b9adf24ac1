"""Every figure and every description of a model that predicts numbers says squared error."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from merging import visualization
from merging.schema.records.alignment import Alignment
from merging.schema.records.curve import Curve
from merging.schema.records.explanations import ImpliedWeights, TaskVectorSummary, TensorErrors
from merging.schema.records.loss_unit import unit_of_loss
from merging.schema.records.scores import MergedScore, Mixtures, Scan, TaskScore
from merging.schema.records.surface import PlanePoint
from merging.schema.records.swag import SwagSamples
from merging.visualization import NamedCurve, NamedScan, NamedScore, NamedSurface

MODELS = ("one", "two")
VECTORS = TaskVectorSummary(
    norms=np.ones(2),
    cosines=np.eye(2),
    conflicts=0.1 * np.eye(2),
    any_conflict=0.1,
    tensors=("w", "b"),
    contributions=np.full((2, 2), 0.5),
)
WEIGHTS = ImpliedWeights(np.linspace(0, 1, 4), np.ones((2, 3), np.int64), np.full(2, 0.5))
ERRORS = [
    TensorErrors(rule=rule, tensor="w", measured=1.0, predicted=0.9, residual=0.1, bound=2.0)
    for rule in ("task_arithmetic", "gradient_matching")
]
# What shows a loss, each with the record it takes.
OF_LOSSES = {
    "curves": "curves",
    "layers": "layers",
    "mismatch": "scans",
    "objectives": "objectives",
    "rule_scores": "scores",
    "scans": "scans",
    "simplex": "simplex",
    "surface_3d": "surface",
    "surfaces": "surfaces",
}
# What shows no loss at all.
OF_NONE = {
    "contributions": "vectors",
    "cycles": "units",
    "errors": "errors",
    "groups": "summary",
    "implied_weights": "weights",
    "margins": "units",
    "permutation": "units",
    "reliability": "scores",
    "similarity": "units",
    "task_vectors": "vectors",
}
MORE_ARGUMENTS = {
    "contributions": (MODELS,),
    "implied_weights": (MODELS,),
    "rule_scores": (MODELS,),
    "task_vectors": (MODELS,),
}
OPTIONS = {"layers": {"quantity": "barrier"}}


@pytest.fixture
def records(make_curve, make_surface, make_simplex, make_units, rows):
    """One record of every kind, of models that predict numbers: no accuracy is known."""
    curve, surface, simplex = make_curve(), make_surface(), make_simplex()
    nothing = np.full(curve.example_losses.shape, np.nan, np.float32)
    curve = replace(curve, accuracy=nothing.mean(1), example_correct=nothing)
    samples = SwagSamples(
        around="A",
        points=(PlanePoint("sample", 1.0, 2.0, 3.0),),
        loss=np.array([0.5]),
        accuracy=np.array([np.nan]),
        mean=PlanePoint("mean", 0.0, 1.0),
        snapshots=20,
        seconds=3.0,
    )
    surface = replace(surface, accuracy=np.full(surface.loss.shape, np.nan))
    task = TaskScore(
        examples=40, loss=0.25, loss_error=0.01, accuracy=math.nan, accuracy_error=math.nan
    )
    loss, unknown = np.array([[0.5, 0.6], [0.2, 0.3]]), np.full((2, 2), np.nan)
    scan = Scan(
        rule="ties",
        values=np.array([0.2, 0.4]),
        loss=loss,
        accuracy=unknown,
        error=unknown,
        mismatch=np.array([1.0, 2.0]),
        split="test",
    )
    run = Alignment(
        method="straight_through",
        permutations={"fc1": np.arange(4)},
        objective=(1.0, 0.5),
        objective_name="loss of the midpoint on the matching set (squared error per example)",
        converged=True,
        stopped=False,
        seconds=1.0,
    )
    return {
        "curves": [NamedCurve("naive", curve)],
        "surface": surface,
        "surfaces": [NamedSurface("plane", "weight", surface, (samples,))],
        "simplex": replace(simplex, accuracy=np.full(simplex.loss.shape, np.nan)),
        "layers": [replace(row, loss_unit="squared error") for row in rows],
        "scores": [NamedScore("Mean", False, MergedScore("average", (task, task)))],
        "scans": [NamedScan("TIES", "scale", scan)],
        "objectives": [run],
        "units": make_units(),
        "vectors": VECTORS,
        "weights": WEIGHTS,
        "errors": ERRORS,
    }


def said(kind, name, records):
    """All that a figure or a description says."""
    show = getattr(visualization, f"{kind}_{name}")
    record = records[(OF_LOSSES | OF_NONE)[name]]
    found = show(record, *MORE_ARGUMENTS.get(name, ()), **OPTIONS.get(name, {}))
    return found if isinstance(found, str) else str(json.loads(found.to_json()))


def described(names):
    return sorted(name for name in names if hasattr(visualization, f"describe_{name}"))


def test_every_figure_and_description_is_looked_at():
    public = {name for name in visualization.__all__ if name.startswith(("plot_", "describe_"))}
    known = OF_LOSSES | OF_NONE
    assert public == {f"plot_{n}" for n in known} | {f"describe_{n}" for n in described(known)}


@pytest.mark.parametrize("name", sorted(OF_LOSSES))
def test_a_figure_of_a_regression_says_squared_error(name, records):
    text = said("plot", name, records)
    assert "nats" not in text
    assert "squared error" in text.replace("<br>", " ")


@pytest.mark.parametrize("name", described(OF_LOSSES))
def test_a_description_of_a_regression_says_squared_error(name, records):
    text = said("describe", name, records)
    assert "nats" not in text
    assert "squared error" in text


@pytest.mark.parametrize("name", sorted(set(OF_NONE) - {"groups"}))
def test_what_shows_no_loss_names_no_unit_of_one(name, records):
    texts = [said("plot", name, records), said("describe", name, records)]
    assert not [text for text in texts if "nats" in text]


@pytest.mark.parametrize("name", ["curves", "simplex", "surfaces"])
def test_losses_of_classes_are_in_nats(name, make_curve, make_simplex, make_surface):
    records = {
        "curves": [NamedCurve("naive", make_curve())],
        "simplex": make_simplex(),
        "surfaces": [NamedSurface("plane", "weight", make_surface())],
    }
    for kind in ("plot", "describe"):
        text = said(kind, name, records)
        assert "nats" in text
        assert "squared error" not in text


def test_the_unit_is_read_off_the_accuracy():
    assert unit_of_loss(np.array([])) == "nats"
    assert unit_of_loss(np.array([np.nan, 0.5])) == "nats"
    assert unit_of_loss(np.array([np.nan, np.nan])) == "squared error"


def test_a_grid_of_shares_keeps_its_unit():
    shares, loss = np.eye(3), np.ones((3, 2))
    found = Mixtures(
        steps=1, shares=shares, loss=loss, accuracy=np.full((3, 2), np.nan), split="validation"
    )
    assert found.loss_unit == "squared error"
    assert visualization.simplex_of_shares(found, "XYZ").loss_unit == "squared error"


def test_equal_records_that_hold_arrays_can_be_compared(make_surface, make_curve):
    one, other = make_surface(), make_surface()
    assert one == one
    assert one != other
    assert len({one, other}) == 2
    curve = make_curve()
    assert isinstance(curve, Curve)
    assert curve != make_curve()
