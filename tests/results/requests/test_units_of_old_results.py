"""Results that were kept before their records named a unit are read with the right one."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from merging.results import requests
from merging.results.compute.entry import Entry
from merging.schema.records.alignment import LayerRow
from merging.schema.records.trained_path import TrainedPath

SUBJECT = requests.bundled_subject("digits-mlp-256")


def without_unit(record):
    return {name: value for name, value in asdict(record).items() if name != "loss_unit"}


def path_entry(correct):
    """A piece of a curve along a path, as it was written before paths named their unit."""
    path = TrainedPath(
        kind="bezier",
        history=(1.0, 0.5),
        converged=True,
        stopped=False,
        seconds=1.0,
        bends=1,
        length=1.1,
        distance=0.2,
    )
    losses = np.ones((2, 3), np.float32)
    arrays = {"lams": np.array([0.0, 1.0]), "losses": losses, "correct": correct}
    meta = {"path": without_unit(path), "statistics": "interpolated", "split": "test"}
    return Entry(arrays, meta)


@pytest.mark.parametrize(
    ("correct", "unit"),
    [
        (np.ones((2, 3), bool), "nats"),
        (np.full((2, 3), np.nan, np.float32), "squared error"),
    ],
    ids=["classes", "numbers"],
)
def test_a_path_has_the_unit_of_the_curve_along_it(correct, unit):
    request = requests.PathCurveRequest(SUBJECT, requests.path(SUBJECT, None, "bezier"))
    found = request.decode(path_entry(correct))
    assert found.path.loss_unit == found.curve.loss_unit == unit


def test_layers_of_bundled_pairs_are_in_nats():
    row = LayerRow(
        layer="fc1", distance_before=1.0, distance_after=0.5, cosine_before=0.1, cosine_after=0.9
    )
    request = requests.LayersRequest(SUBJECT, requests.alignment(SUBJECT, "weight"))
    (found,) = request.decode(Entry({}, {"rows": [without_unit(row)]}))
    assert found.loss_unit == "nats"
