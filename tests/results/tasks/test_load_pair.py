from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import merging
from merging.files.checkpoints.fingerprint import fingerprint
from merging.files.checkpoints.write import checkpoint_bytes
from merging.landscape import evaluate
from merging.models import read_examples
from merging.models.build import build_network
from merging.results import requests
from merging.results.compute.store import Store
from merging.results.tasks import load_pair
from merging.results.uploads import keep, load
from merging.schema.errors import ArchitectureMismatchError, MergingError
from tests.bad_files import (
    examples,
    npz,
    plain_pickle,
    saved,
    truncated,
    with_code,
    with_nan,
    with_prefix,
)

NAME = "digits-mlp-256"
SUBJECT = requests.bundled_subject(NAME)


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "store")
    yield made
    made.close()


@pytest.fixture(scope="module")
def pair():
    return merging.load_pair(NAME)


def kept(params, store, name="mine.safetensors"):
    data = params if isinstance(params, bytes) else checkpoint_bytes(params)
    return keep.keep_checkpoint(data, name, store)


def uploaded(params_a, params_b, store):
    a, b = kept(params_a, store, "a.bin"), kept(params_b, store, "b.bin")
    return replace(SUBJECT, config=a.config, model_a=a.fingerprint, model_b=b.fingerprint)


def test_a_bundled_subject_is_the_pair(pair, store):
    loaded = load_pair.load(SUBJECT, store)
    for params, expected in ((loaded.params_a, pair.params_a), (loaded.params_b, pair.params_b)):
        assert list(params) == list(pair.model.state_dict())
        for name, value in params.items():
            assert torch.equal(value, expected[name])
    assert loaded.data.fingerprint == SUBJECT.data_fingerprint
    assert len(loaded.statistics_examples("reset")) == 1000
    assert len(loaded.statistics_examples("repair")) == 500
    assert loaded.split("train").name == "train"
    assert loaded.split("test") is loaded.data.test


def test_it_is_loaded_once(store):
    assert load_pair.load(SUBJECT, store) is load_pair.load(SUBJECT, store)


def test_an_upload_is_kept_as_safetensors(pair, store):
    found = kept(saved(pair.params_a), store, "mine.pt")
    assert found.fingerprint == fingerprint(pair.params_a) == SUBJECT.model_a
    assert found.name == "mine.pt"
    path = store.files.path(found.fingerprint)
    assert path is not None
    assert path.suffix == ".safetensors"
    assert fingerprint(merging.read_checkpoint(path)[0]) == found.fingerprint


@pytest.mark.parametrize(
    ("write", "notes"),
    [
        (checkpoint_bytes, []),
        (saved, []),
        (with_prefix, ["The prefix 'module.' was cut off all names."]),
        (
            lambda params: saved({"state_dict": params, "epoch": 3}),
            ["The weights were found under 'state_dict'.", "Left out beside the weights: 'epoch'."],
        ),
    ],
    ids=["safetensors", "torch", "prefix", "nested"],
)
def test_the_format_does_not_count_and_notes_say_what_was_done(write, notes, pair, store):
    found = kept(write(dict(pair.params_b)), store)
    assert found.fingerprint == SUBJECT.model_b
    assert json.loads(found.config) == pair.card["config"]
    assert len(found.notes) == len(notes)
    for note, expected in zip(found.notes, notes, strict=True):
        assert note.replace("'", "") == expected.replace("'", "")


def test_identical_files_have_one_fingerprint(pair, store):
    subject = uploaded(pair.params_a, saved(dict(pair.params_a)), store)
    assert subject.model_a == subject.model_b
    loaded = load_pair.load(subject, store)
    assert all(torch.equal(loaded.params_a[k], loaded.params_b[k]) for k in loaded.params_a)


def test_every_bundled_architecture_is_recognised(store):
    for name in merging.list_pairs():
        card = merging.load_pair(name).card
        found = kept(merging.load_pair(name).params_a, store)
        assert found.fingerprint == card["fingerprint_a"]
        assert found.config == requests.bundled_subject(name).config, name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype, pair, store):
    halves = [
        {name: value.to(dtype) for name, value in params.items()}
        for params in (pair.params_a, pair.params_b)
    ]
    loaded = load_pair.load(uploaded(*halves, store), store)
    for params, half in zip((loaded.params_a, loaded.params_b), halves, strict=True):
        assert {value.dtype for value in params.values()} == {torch.float32}
        assert all(torch.equal(params[name], half[name].float()) for name in half)
    assert evaluate(loaded.model, loaded.params_a, loaded.data.test).accuracy[0] > 0.9


def test_what_is_kept_keeps_its_dtype(pair, store):
    halves = {name: value.half() for name, value in pair.params_a.items()}
    found = kept(halves, store)
    params = load.load_params(found.fingerprint, store)
    assert {value.dtype for value in params.values()} == {torch.float16}


def test_models_of_two_precisions_are_both_computed_in_float32(pair, store):
    half = {name: value.half() for name, value in pair.params_b.items()}
    loaded = load_pair.load(uploaded(pair.params_a, half, store), store)
    assert {v.dtype for v in (*loaded.params_a.values(), *loaded.params_b.values())} == {
        torch.float32
    }
    assert torch.equal(loaded.params_b["layers.0.weight"], half["layers.0.weight"].float())


def test_models_of_two_widths_are_refused_by_layer(pair, store):
    narrow = {
        "layers.0.weight": torch.zeros(8, 64),
        "layers.0.bias": torch.zeros(8),
        "layers.1.weight": torch.zeros(10, 8),
        "layers.1.bias": torch.zeros(10),
    }
    with pytest.raises(ArchitectureMismatchError, match=r"'layers\.\d\.weight'"):
        load_pair.load(uploaded(pair.params_a, narrow, store), store)


def test_models_of_one_depth_and_two_widths_name_both_shapes(store):
    def network(width):
        return {
            "layers.0.weight": torch.ones(width, 64),
            "layers.0.bias": torch.zeros(width),
            "layers.1.weight": torch.ones(10, width),
            "layers.1.bias": torch.zeros(10),
        }

    with pytest.raises(
        ArchitectureMismatchError, match=r"'layers\.0\.weight' is \[8, 64\].*\[6, 64\]"
    ):
        load_pair.load(uploaded(network(8), network(6), store), store)


def test_a_model_that_is_gone_says_where_to_upload_it_again(pair, store):
    subject = uploaded({k: v * 2 for k, v in pair.params_a.items()}, pair.params_b, store)
    store.files.path(subject.model_a).unlink()
    with pytest.raises(MergingError, match=r"no longer in the result store.*upload it again"):
        load_pair.load(subject, store)


def test_data_that_are_gone_say_where_to_upload_them_again(store):
    subject = replace(SUBJECT, data="ab" * 32, data_fingerprint="ab" * 32)
    with pytest.raises(MergingError, match=r"the data abababab are no longer.*upload them again"):
        load_pair.load(subject, store)


def test_an_upload_that_is_gone_is_asked_for_again(store):
    with pytest.raises(MergingError, match=r"the upload of mine\.pt is no longer there"):
        keep.uploaded("ab" * 32, "mine.pt", store)


def test_code_in_an_upload_never_runs(pair, store, tmp_path):
    for k, make in enumerate((plain_pickle, lambda m: with_code(m, pair.params_a))):
        marker = tmp_path / f"marker{k}"
        with pytest.raises(MergingError, match=r"evil\.pt"):
            kept(make(marker), store, "evil.pt")
        assert not marker.exists()


def test_bad_uploads_are_refused_and_not_kept(pair, store):
    with pytest.raises(MergingError, match=r"mine\.bin: .*copy or download it again"):
        kept(truncated(pair.params_a), store, "mine.bin")
    with pytest.raises(MergingError, match=r"layers\.1\.weight. \(2 NaN, 0 infinite\)"):
        kept(with_nan(pair.params_a, "layers.1.weight"), store, "mine.bin")
    with pytest.raises(ArchitectureMismatchError, match=r"mine\.bin belongs to no bundled"):
        kept({"stem.weight": torch.zeros(3, 3)}, store, "mine.bin")
    assert not list(store.folder.glob("??/*.safetensors"))


def test_examples_are_kept_in_one_random_order_and_halved(store):
    x = np.arange(21, dtype=np.float32)[:, None].repeat(64, 1)
    y = np.arange(21) % 10
    found = keep.keep_data(npz(x=x, y=y), "mine.npz", SUBJECT.config, store)
    assert (found.examples, found.classes) == (21, 10)
    assert "first 10 examples" in found.notes[0]
    assert "other 11" in found.notes[0]
    subject = replace(SUBJECT, data=found.fingerprint, data_fingerprint=found.fingerprint)
    data = load_pair.load(subject, store).data
    assert (len(data.train), len(data.test)) == (10, 11)
    values = torch.cat([data.train.inputs, data.test.inputs])[:, 0]
    labels = torch.cat([data.train.targets, data.test.targets])
    assert sorted(values.tolist()) == list(range(21))
    assert values.tolist() != list(range(21))
    assert torch.equal(values.long() % 10, labels)


def test_equal_examples_have_one_fingerprint(store):
    data = examples((64,))
    one, other = (
        keep.keep_data(data, name, SUBJECT.config, store) for name in ("mine.npz", "yours.npz")
    )
    assert one.fingerprint == other.fingerprint


def test_no_temporary_file_is_left(store):
    keep.keep_data(examples((64,)), "mine.npz", SUBJECT.config, store)
    assert not list(store.folder.glob("*.tmp.npz"))


@pytest.mark.parametrize("name", ["digits-mlp-256", "two-unit-counterexample", "mnist1d-conv"])
def test_classes_are_counted_from_the_outputs(name):
    config = json.loads(requests.bundled_subject(name).config)
    assert read_examples.classes_of(build_network(config)) == (2 if name.startswith("two") else 10)


@pytest.mark.parametrize("n", [2, 3])
def test_few_examples_are_enough_for_a_curve(n, store, pair):
    found = keep.keep_data(examples((64,), n), "mine.npz", SUBJECT.config, store)
    subject = replace(SUBJECT, data=found.fingerprint, data_fingerprint=found.fingerprint)
    loaded = load_pair.load(subject, store)
    assert len(loaded.data.train) == n // 2
    assert evaluate(loaded.model, loaded.params_a, loaded.data.test).losses.shape == (1, n - n // 2)


def test_a_spec_without_a_group_is_kept_and_used(store):
    chosen = keep.keep_spec("", SUBJECT.config, store, freeze=["layers.0.weight[0]"])
    assert (chosen.groups, chosen.units) == (2, 512)
    loaded = load_pair.load(replace(SUBJECT, spec=chosen.fingerprint), store)
    assert list(loaded.spec.sizes) == ["layers.1.weight[0]", "layers.2.weight[0]"]
    assert len(load_pair.load(SUBJECT, store).spec.sizes) == 3


def test_the_derived_spec_uploaded_again_is_no_other_spec(store):
    text = load.certified(SUBJECT.config, store)[1].to_json()
    assert keep.keep_spec(text, SUBJECT.config, store).fingerprint == ""


def test_a_wrong_spec_is_not_kept(store):
    wrong = json.dumps({"layers.0.weight": ["P", None]})
    with pytest.raises(MergingError, match=r"group 'P' on layers\.0\.weight\[0\] changes"):
        keep.keep_spec(wrong, SUBJECT.config, store)


def test_a_spec_that_is_gone_is_named(store):
    with pytest.raises(MergingError, match="spec abababab is no longer in the result store"):
        load_pair.load(replace(SUBJECT, spec="ab" * 32), store)
