"""`python -m merging fuse` by every rule, on own files and bundled families."""

from __future__ import annotations

import json
import zipfile

import pytest
import safetensors.torch
import torch

import merging
from merging.cli.main import main
from merging.fusion import multi_head, zip_models
from merging.schema.cards.fusion.table import RULE_CARDS, find_card
from tests.own_families import bring, bundled, fused

FACTOR = 0.3
KINDS = ("fine-tuned", "apart", "run")
FAMILIES = {"fine-tuned": "mnist-soup", "run": "mnist-run", "apart": "mnist-seeds"}
ORDERS = {"apart": "cycle consistent"}
# Long training teaches a test nothing; every pass is one more chance to differ. Where a task's
# removal leaves next to no curvature, entries are divided by it, and rounding would decide.
SHORT = {
    "distillation": {"epochs": 2},
    "learned_soup": {"epochs": 2},
    "remove_task": {"delta": 1e4, "least": 1.0},
}


def usable(kind):
    """What models of a kind can be fused by; of a run, what only a run can be fused by."""
    cards = RULE_CARDS.values()
    if kind == "run":
        return [card.name for card in cards if card.family == "trajectory"]
    return [card.name for card in cards if kind == "fine-tuned" or not card.needs_base]


def count_of(rule):
    return find_card(rule).most_models or 3


def scale_of(rule):
    return FACTOR if find_card(rule).weights == "scales" else None


@pytest.fixture(scope="module", autouse=True)
def own_store(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONE_BASIN_STORE", str(tmp_path_factory.mktemp("rules") / "store"))
        yield


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    return {kind: bring(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


def run(capsys, rule, words, out):
    """Fuse on the command line; what it prints, and the file."""
    given = [] if scale_of(rule) is None else ["--weights", str(FACTOR)]
    for name, value in SHORT.get(rule, {}).items():
        given += ["--option", f"{name}={value}"]
    assert (
        main(["fuse", *map(str, words), "--rule", rule, *given, "--out", str(out), "--json"]) == 0
    )
    return json.loads(capsys.readouterr().out), safetensors.torch.load_file(out)


def expect_equal(found, rule, models, order=""):
    weights = None if scale_of(rule) is None else [FACTOR] * len(models.models)
    expected = fused(rule, models, weights=weights, options=SHORT.get(rule), order=order)
    assert set(found) == set(expected)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("kind", "rule"), [(k, rule) for k in KINDS for rule in usable(k)])
def test_own_files_are_fused_as_by_the_library(kind, rule, own, capsys, tmp_path):
    models = own[kind].some(count_of(rule))
    words = [*models.files, "--data", models.examples]
    words += ["--base", models.base_file] if models.base_file else []
    words += ["--order", ORDERS[kind]] if kind in ORDERS else []
    said, found = run(capsys, rule, words, tmp_path / "merged.safetensors")
    assert 0 <= said["accuracy"] <= 1
    expect_equal(found, rule, models, ORDERS.get(kind, ""))


def alone():
    """Rules that files are enough for, without any examples."""
    cards = RULE_CARDS.values()
    needs = ("needs_data", "needs_fishers", "needs_grams", "needs_sizes")
    return [card.name for card in cards if not any(getattr(card, need) for need in needs)]


@pytest.mark.parametrize("rule", alone())
def test_files_alone_are_fused_tensor_by_tensor(rule, own, capsys, tmp_path):
    kind = "run" if find_card(rule).family == "trajectory" else "fine-tuned"
    models = own[kind].some(count_of(rule))
    words = [*models.files, *(["--base", models.base_file] if models.base_file else [])]
    _, found = run(capsys, rule, words, tmp_path / "merged.safetensors")
    expect_equal(found, rule, models)


@pytest.mark.parametrize("first", [0, 1])
def test_models_of_other_widths_are_carried_to_the_first_ones(first, capsys, tmp_path):
    models = bring("widths", tmp_path)
    members = (first, *(k for k in range(3) if k != first))
    words = [*models.files, "--data", models.examples]
    words += ["--members", ",".join(map(str, members))] if first else []
    said, found = run(capsys, "transport", words, tmp_path / "merged.safetensors")
    assert said["as wide as"] == str(models.files[first])
    expect_equal(found, "transport", models.of(members))
    models.networks[first].load_state_dict(found, strict=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rule", "average"], "Weighted mean needs models of one width"),
        (["--rule", "transport", "--order", "first"], "have no common order of units"),
        (["--rule", "transport", "--base", "model-1.safetensors"], "model-2.safetensors"),
    ],
)
def test_what_models_of_other_widths_cannot_do_is_said(
    words, message, capsys, tmp_path, monkeypatch
):
    models = bring("widths", tmp_path)
    monkeypatch.chdir(tmp_path)
    files = [path.name for path in models.files]
    assert main(["fuse", *files, "--data", "examples.npz", *words]) == 1
    assert message in capsys.readouterr().err


def test_networks_that_are_zipped_in_part_keep_heads_of_their_own(own, capsys, tmp_path):
    models = own["apart"].some(2)
    words = [*models.files, "--data", models.examples, "--option", "depth=1"]
    said, found = run(capsys, "zipit", words, tmp_path / "merged.safetensors")
    assert said["notes"] == {"heads": 2, "tensors in common": 2}
    spec = merging.find_symmetry(models.model, models.inputs)
    zipped = zip_models(
        spec, models.model, models.models, models.train, groups=["layers.0.weight[0]"]
    )
    network = multi_head(models.model, zipped)
    expected = {key: value.clone() for key, value in network.state_dict().items()}
    network.load_state_dict(found, strict=True)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value)
    test = merging.read_examples(models.examples, merging.read_model(models.files[0])).test
    with torch.no_grad():
        right = network(test.inputs).mean(0).argmax(1) == test.targets
    assert said["accuracy"] == pytest.approx(float(right.double().mean()))


def test_heads_are_complete_models_in_a_zip_file(own, capsys, tmp_path):
    models, out = own["apart"].some(2), tmp_path / "merged.zip"
    words = ["fuse", *map(str, models.files), "--data", str(models.examples), "--rule", "zipit"]
    assert main([*words, "--option", "depth=2", "--out", str(out), "--json"]) == 0
    spec = merging.find_symmetry(models.model, models.inputs)
    zipped = zip_models(spec, models.model, models.models, models.train, options={"depth": 2})
    with zipfile.ZipFile(out) as archive:
        for name, head in zip(("head-1", "head-2"), zipped.heads, strict=True):
            found = safetensors.torch.load(archive.read(f"{name}.safetensors"))
            assert set(found) == {models.prefix + key for key in head}
            for key, value in head.items():
                torch.testing.assert_close(found[models.prefix + key], value)
    assert main([*words, "--option", "depth=3"]) == 1
    assert "3 groups cannot be zipped: the network has 2" in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "rule"), [
    *[("fine-tuned", rule) for rule in usable("fine-tuned")],
    *[("run", rule) for rule in usable("run")],
    *[("apart", rule) for rule in ("average", "fisher", "regmean", "zipit", "transport")],
])  # fmt: skip
def test_bundled_families_are_fused_as_by_the_library(kind, rule, capsys, tmp_path):
    count, name = count_of(rule), FAMILIES[kind]
    members = ",".join(map(str, range(count)))
    words = [name, "--members", members]
    words += ["--order", "first"] if kind == "apart" else []
    said, found = run(capsys, rule, words, tmp_path / "merged.safetensors")
    assert 0 < said["accuracy"] <= 1
    expect_equal(found, rule, bundled(name, count), "first" if kind == "apart" else "")
