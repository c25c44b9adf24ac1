"""Graphs that are read although they were made to harm: whatever they do, they do to copies."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from merging.cli.session import Session
from merging.files.data.bundled import load_dataset
from merging.files.sealed import check_seals, seal
from merging.models.exported.blueprint import ExportedModel
from merging.models.exported.pt2_archive import read_pt2
from merging.results import requests
from merging.results.compute.run_piece import in_words
from merging.results.compute.store import Store
from merging.results.tasks import border
from merging.results.uploads.keep import keep_checkpoint
from merging.schema.errors import ComputeError, MergingError
from tests.hostile import graphs
from tests.models.exported.test_pt2_archive import exported

BUNDLED = requests.CurveRequest(requests.bundled_subject("two-unit-counterexample"), lams=3)


def computed_anew(folder, request):
    store = Store(folder)
    try:
        return Session(store).compute(request)
    finally:
        store.close()


def subject_of(data, store):
    kept = keep_checkpoint(data, "mine.pt2", store)
    mark = kept.fingerprint
    return replace(BUNDLED.subject, config=kept.config, model_a=mark, model_b=mark)


def test_after_all_of_them_bundled_results_are_what_they_were(tmp_path):
    before = computed_anew(tmp_path / "before", BUNDLED)
    fingerprint = load_dataset("quadrant").fingerprint
    store = Store(tmp_path / "store")
    outcomes = {}
    for name, make in graphs.TAKEN.items():
        start = time.process_time()
        try:
            request = requests.CurveRequest(subject_of(make(), store), lams=3)
            outcomes[name] = Session(store).compute(request)
        except MergingError as error:
            outcomes[name] = str(error)
        assert time.process_time() - start < 30
    store.close()
    assert load_dataset("quadrant").fingerprint == fingerprint
    after = computed_anew(tmp_path / "after", BUNDLED)
    assert before.loss.tolist() == after.loss.tolist()
    assert before.accuracy.tolist() == after.accuracy.tolist()
    writers = [name for name in graphs.TAKEN if name.split("-")[0] in ("fills", "shifts", "writes")]
    assert [name for name in writers if isinstance(outcomes[name], str)] == []
    beyond = [name for name in graphs.TAKEN if name.endswith("beyond")]
    assert all(
        "examples of shape" in outcomes[name] or "graph" in outcomes[name] for name in beyond
    )


@pytest.mark.parametrize("name", graphs.TAKEN)
def test_nothing_that_a_graph_is_given_is_changed(name):
    archive = read_pt2(graphs.TAKEN[name](), "mine")
    model = ExportedModel(archive.blueprint, archive.weights, archive.constants, "mine")
    x = torch.randn(5, 2)
    given = {"x": x, **dict(model.state_dict())}
    before = {key: value.clone() for key, value in given.items()}
    versions = {key: value._version for key, value in given.items()}
    with torch.no_grad():
        try:
            model(x)
        except MergingError:
            assert name.endswith("beyond")
    assert all(torch.equal(given[key], before[key]) for key in given)
    assert {key: value._version for key, value in given.items()} == versions


class Normalised(nn.Module):
    """An honest model that normalises its input in place."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(2, 2)

    def forward(self, x):
        x.sub_(x.mean(1, keepdim=True)).div_(2)
        x[:, 0] = x[:, 0] * 3
        return self.out(torch.relu_(x))


def test_a_model_that_writes_into_its_input_gives_its_own_numbers_every_time():
    torch.manual_seed(0)
    module = Normalised()
    archive = read_pt2(exported(module, torch.randn(2, 2)), "mine")
    model = ExportedModel(archive.blueprint, archive.weights, archive.constants, "mine").eval()
    x = torch.randn(7, 2)
    with torch.no_grad():
        expected = module(x.clone())
        assert torch.equal(model(x), expected)
        assert torch.equal(model(x), expected)


def test_what_is_shared_is_read_anew_once_something_wrote_into_it():
    kept, forgotten = torch.ones(3), []
    seal([kept], lambda: forgotten.append("all"))
    check_seals()
    kept.mul_(2)
    with pytest.raises(ComputeError, match="something wrote into data or weights"):
        check_seals(contents=False)
    assert "all" in forgotten
    check_seals()


def test_a_seal_sees_what_pytorch_has_no_record_of():
    kept = torch.ones(3)
    seal([kept], lambda: None)
    kept.numpy()[1] = 5
    with pytest.raises(ComputeError, match="read again"):
        check_seals()


@pytest.mark.parametrize(
    ("error", "payload", "match"),
    [
        (RuntimeError("mat1 and mat2\nat::native"), '"exported"', r"here: mat1 and mat2\. Export"),
        (IndexError("index 9"), '"exported"', "graph of a model that was uploaded"),
    ],
)
def test_errors_of_pytorch_are_put_in_words(error, payload, match):
    with pytest.raises(MergingError, match=match), border.guarded(payload):
        raise error


@pytest.mark.parametrize(
    "error", [RuntimeError("[enforce fail at alloc_cpu.cpp:121] data. 12 bytes"), MemoryError()]
)
def test_want_of_memory_is_told_from_a_graph_that_cannot_be_computed(error):
    with pytest.raises(type(error)) as raised, border.guarded('"exported"'):
        raise error
    assert in_words(raised.value).startswith("there was not enough memory")


def test_errors_of_our_own_stay_what_they_are():
    with pytest.raises(ZeroDivisionError), border.guarded("{}"):
        raise ZeroDivisionError
