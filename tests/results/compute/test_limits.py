"""What of a request was uploaded is held to limits; what ships with the app is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from merging.results import requests
from merging.results.compute.processes import (
    Limits,
    find_process,
    held,
    limits_of_uploads,
    this_process,
)
from merging.results.compute.run_piece import is_out_of_memory
from merging.results.requests.bundled import is_bundled
from merging.schema.cards.zoo import list_families, list_pairs

SUBJECT = requests.bundled_subject("digits-mlp-256")


@pytest.mark.parametrize("name", list_pairs())
def test_bundled_pairs_have_no_limits(name):
    subject = requests.bundled_subject(name)
    for request in (
        requests.alignment(subject, "weight"),
        requests.SymmetryRequest(subject.config),
    ):
        assert request.job().limits is None


@pytest.mark.parametrize("name", list_families())
def test_bundled_families_have_no_limits(name):
    assert requests.fusion(requests.bundled_family(name), "average").job().limits is None


@pytest.mark.parametrize(
    "change",
    [
        {"model_b": "ab" * 32},
        {"data_fingerprint": "ab" * 32},
        {"spec": "ab" * 32},
        {"config": '{"architecture":"mlp","widths":[64,9999999,10]}'},
    ],
    ids=lambda change: next(iter(change)),
)
def test_anything_uploaded_brings_limits(change):
    alignment = requests.alignment(replace(SUBJECT, **change), "weight")
    assert alignment.job().limits is not None
    assert requests.UnitsRequest(SUBJECT, alignment).job().limits is not None


def test_reading_an_upload_is_quick_and_has_less_time():
    job = requests.CheckpointRequest("ab" * 32, "a.pt").job()
    assert job.quick
    assert job.limits.seconds < limits_of_uploads(quick=False).seconds
    assert not is_bundled({"upload": "", "file": '{"path":"a.pt"}'})


def test_whoever_runs_the_server_sets_the_limits(monkeypatch):
    monkeypatch.setenv("ONE_BASIN_PIECE_SECONDS", "7")
    monkeypatch.setenv("ONE_BASIN_PIECE_GB", "1.5")
    assert limits_of_uploads(quick=False) == Limits(7, 3 << 29)
    for nonsense in ("", "much", "nan", "-1", "inf"):
        monkeypatch.setenv("ONE_BASIN_PIECE_SECONDS", nonsense)
        assert limits_of_uploads(quick=True).seconds == 120


def test_memory_beyond_the_limit_is_refused_and_given_again_afterwards():
    pytest.importorskip("resource")
    with held(Limits(60, 1 << 27)), pytest.raises(MemoryError) as refused:
        np.empty(1 << 30)  # far more than what was freed before and may be had again
    assert is_out_of_memory(refused.value)
    assert np.ones(1 << 26).nbytes == 1 << 29


def test_a_process_is_found_by_its_name_and_nobody_elses():
    assert find_process(this_process()).is_running()
    host, pid, born = this_process().rsplit("/", 2)
    for name in ("", "x", f"{host}/{pid}/1", f"elsewhere/{pid}/{born}", f"{host}/0x1/{born}"):
        assert find_process(name) is None
