"""Code and commands that pages offer: they run, and give the result of the request."""

from __future__ import annotations

import ast
import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

import merging
from merging.cli.main import main
from merging.cli.session import Session
from merging.files.data.bundled import load_dataset
from merging.models.architectures.registry import build_model
from merging.results import as_code, requests
from merging.results.compute.store import Store
from merging.results.uploads.keep import keep_checkpoint, keep_spec
from merging.schema.errors import UnknownNameError
from tests.models.exported.test_pt2_archive import Small, exported

PAIR = "digits-mlp-256"
SUBJECT = requests.bundled_subject(PAIR)
WEIGHT = requests.alignment(SUBJECT, "weight", {"restarts": 1}, seed=4)
ACTIVATION = requests.alignment(
    SUBJECT, "activation", {"similarity": "correlation", "examples": 200}
)
REQUESTS = {
    "weight": WEIGHT,
    "activation": ACTIVATION,
    "naive curve": requests.CurveRequest(SUBJECT, None, "train", lams=3),
    "curve": requests.CurveRequest(SUBJECT, ACTIVATION, "test", "repair", 5, 0.25),
    "plane": requests.SurfaceRequest(
        SUBJECT, ("a", replace(WEIGHT, seed=0), ACTIVATION), ("b",), 0, "train", margin=0.5
    ),
    "directions": requests.SurfaceRequest(SUBJECT, (WEIGHT,), level=0, seed=4),
    "permutation": requests.ExportRequest(SUBJECT, WEIGHT, "permutation"),
    "aligned": requests.ExportRequest(SUBJECT, WEIGHT, "aligned"),
    "merged": requests.ExportRequest(SUBJECT, WEIGHT, "merged", 0.25),
    "torch": requests.ExportRequest(SUBJECT, WEIGHT, "merged", container="pt"),
    "rescaled": requests.ExportRequest(SUBJECT, None, "merged", 0.5, "rescale"),
}


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONE_BASIN_STORE", str(tmp_path / "store"))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The requests' own results, computed once."""
    session = Session(Store(tmp_path_factory.mktemp("results")))
    yield {name: session.compute(request) for name, request in REQUESTS.items()}
    session.store.close()


def run(code: str) -> dict:
    space: dict = {}
    exec(compile(code, "<as code>", "exec"), space)
    return space


def words_of(request: requests.Request) -> list[str]:
    """The command, without the program's name."""
    program, *words = shlex.split(as_code.command(request))
    assert [program, *words[:2]] == ["python", "-m", "merging"]
    return words[2:]


def command(request: requests.Request, capsys) -> dict:
    assert main([*words_of(request), "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def written(file: str):
    """The arrays in a file that code or a command wrote."""
    if file.endswith(".npz"):
        with np.load(file) as arrays:
            return dict(arrays)
    if file.endswith(".pt"):
        return {name: value.numpy() for name, value in torch.load(file, weights_only=True).items()}
    return {name: value.numpy() for name, value in safetensors.torch.load_file(file).items()}


def arrays_of(result: requests.Download, folder):
    path = folder / result.name
    path.write_bytes(result.data)
    return written(str(path))


@pytest.mark.parametrize("name", ["weight", "activation"])
def test_python_finds_the_permutations(name, results):
    found = run(as_code.python(REQUESTS[name]))["found"]
    for group, perm in results[name].permutations.items():
        np.testing.assert_array_equal(found.permutations[group], perm)
    assert found.seed == REQUESTS[name].seed


@pytest.mark.parametrize("name", ["weight", "activation"])
def test_a_command_finds_the_permutations(name, results, capsys):
    found = command(REQUESTS[name], capsys)
    assert found["objective"] == pytest.approx(results[name].objective[-1], rel=1e-6)
    moved = [int((p != np.arange(len(p))).sum()) for p in results[name].permutations.values()]
    assert list(found["units moved"].values()) == moved


@pytest.mark.parametrize("name", ["naive curve", "curve"])
def test_python_gives_the_curve(name, results):
    curve = run(as_code.python(REQUESTS[name]))["curve"]
    np.testing.assert_array_equal(curve.lams, results[name].lams)
    np.testing.assert_allclose(curve.loss, results[name].loss, rtol=1e-4)


@pytest.mark.parametrize("name", ["naive curve", "curve"])
def test_a_command_gives_the_curve(name, results, capsys):
    curve = command(REQUESTS[name], capsys)
    assert curve["lams"] == results[name].lams.tolist()
    np.testing.assert_allclose(curve["loss"], results[name].loss, rtol=1e-6)
    assert curve["statistics"] == results[name].statistics


@pytest.mark.parametrize("name", ["plane", "directions"])
def test_python_gives_the_surface(name, results):
    surface = run(as_code.python(REQUESTS[name]))["surface"]
    np.testing.assert_allclose(surface.loss, results[name].loss, rtol=1e-4)
    np.testing.assert_allclose(surface.x, results[name].x, rtol=1e-6)


@pytest.mark.parametrize("name", ["plane", "directions"])
def test_a_command_gives_the_surface(name, results, capsys):
    surface = command(REQUESTS[name], capsys)
    np.testing.assert_allclose(surface["loss"], results[name].loss, rtol=1e-6)
    assert [p["name"] for p in surface["points"]] == [p.name for p in results[name].points]


FILES = {
    "permutation": "permutation.npz",
    "aligned": "aligned.safetensors",
    "merged": "merged.safetensors",
    "torch": "merged.pt",
    "rescaled": "merged.safetensors",
}


@pytest.mark.parametrize("name", FILES)
def test_python_writes_the_file(name, results, tmp_path):
    run(as_code.python(REQUESTS[name]))
    expected, found = arrays_of(results[name], tmp_path), written(FILES[name])
    assert list(found) == list(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", FILES)
def test_a_command_writes_the_file(name, results, tmp_path, capsys):
    command(REQUESTS[name], capsys)
    expected, found = arrays_of(results[name], tmp_path), written(FILES[name])
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value)


@pytest.mark.parametrize("name", REQUESTS)
def test_a_command_asks_for_what_the_page_asked_for(name, capsys, monkeypatch):
    asked: list[requests.Request] = []

    def run(self, request):
        asked.append(request)
        raise merging.MergingError("enough")

    monkeypatch.setattr(Session, "run", run)
    assert main(words_of(REQUESTS[name])) == 1
    capsys.readouterr()
    wanted = REQUESTS[name]
    expected = wanted.alignment if name in ("permutation", "aligned") else wanted
    assert asked[0].key == expected.key


def uploaded(store: Store) -> requests.Subject:
    """Two exported models, without examples, kept in a store."""
    marks = []
    for letter, seed in (("A", 0), ("B", 1)):
        torch.manual_seed(seed)
        data = exported(Small(), torch.randn(2, 1, 8, 8))
        (store.folder.parent / f"{letter}.pt2").write_bytes(data)
        marks.append(keep_checkpoint(data, f"{letter}.pt2", store))
    a, b = marks
    return requests.Subject(a.config, a.fingerprint, b.fingerprint, "", "")


def test_uploaded_models_have_stand_in_names(tmp_path, capsys):
    store = Store(tmp_path / "mine")
    request = requests.alignment(uploaded(store), "weight")
    expected = Session(store).compute(request).permutations
    assert as_code.note(request) == "Put your own files here: `A.pt2` and `B.pt2` for your models."
    assert words_of(request) == ["match", "A.pt2", "B.pt2"]
    found = run(as_code.python(request))["found"].permutations
    for group, perm in expected.items():
        np.testing.assert_array_equal(found[group], perm)
    moved = {group: int((p != np.arange(len(p))).sum()) for group, p in expected.items()}
    assert command(request, capsys)["units moved"] == moved
    store.close()


def test_a_spec_that_was_chosen_is_a_file(tmp_path, capsys):
    store = Store(tmp_path / "mine")
    chosen = keep_spec("", SUBJECT.config, store, freeze=["layers.0.weight[0]"])
    request = requests.alignment(replace(SUBJECT, spec=chosen.fingerprint), "weight")
    expected = Session(store).compute(request).permutations
    (tmp_path / "spec.json").write_bytes(store.files.path(chosen.fingerprint).read_bytes())
    assert "`spec.json` for the permutation spec" in as_code.note(request)
    found = run(as_code.python(request))["found"].permutations
    assert list(found) == list(expected) == ["layers.1.weight[0]", "layers.2.weight[0]"]
    for group, perm in expected.items():
        np.testing.assert_array_equal(found[group], perm)
    assert list(command(request, capsys)["units moved"]) == list(expected)
    store.close()


def test_architectures_of_elsewhere_are_given_to_the_command():
    config = requests.canonical({"architecture": "own", "function": "mine:small"})
    request = requests.CurveRequest(requests.Subject(config, "1", "2", "data", "data"), lams=3)
    assert words_of(request)[:7] == [
        "interpolate", "A.safetensors", "B.safetensors", "--data", "examples.npz", "--model",
        "mine:small",
    ]  # fmt: skip
    code = as_code.python(request)
    ast.parse(code)
    assert 'a = merging.read_model("A.safetensors", architecture="mine:small")' in code
    assert 'merging.read_examples("examples.npz", a)' in code


def test_what_has_no_code_says_so():
    request = requests.FitRequest("1", "2")
    assert not as_code.has_code(request)
    with pytest.raises(UnknownNameError, match="no code for the task 'fit'"):
        as_code.python(request)
    with pytest.raises(UnknownNameError, match="no command for the task 'units'"):
        as_code.command(requests.UnitsRequest(SUBJECT, WEIGHT))


MODELS = requests.bundled_family("mnist-classes")
SEEDS = requests.bundled_family("mnist-seeds").of((0, 3))
RUN = requests.bundled_family("mnist-run")
FUSIONS = {
    "a part of a family": requests.fusion(
        MODELS.of((0, 2)), "gradient_matching", {"delta": 0.5}, weights=(0.5, 0.25), seed=3
    ),
    "options": requests.fusion(
        MODELS, "dare", {"then": "TIES", "drop": 0.5}, weights=(-0.5, 1, 1, 1, 1), seed=2
    ),
    "without its base": requests.fusion(
        MODELS.of((1, 4, 3)).without_base(), "regmean", {"off_diagonal": 0.5}
    ),
    "lined up": requests.fusion(
        SEEDS, "fisher", order=requests.OrderRequest(SEEDS, "merge many", 1), labels="true", seed=1
    ),
    "zipped": requests.fusion(SEEDS, "zipit", {"damping": 0.5}),
    "zipped in part": requests.fusion(MODELS.of((0, 4)), "zipit", {"depth": 1}),
    "zipped in part, of one task": requests.fusion(SEEDS, "zipit", {"depth": 2}),
    "a run": requests.fusion(RUN, "swa", {"skip": 5}),
    "a soup": requests.fusion(RUN, "greedy_soup", split="validation"),
    "distilled": requests.fusion(RUN.of((6, 7)), "distillation", {"epochs": 1}, seed=5),
    "carried": requests.fusion(requests.pair_family(SUBJECT), "transport"),
    "a pair": requests.fusion(
        requests.pair_family(requests.bundled_subject("mnist-resnet-bn")),
        "average",
        statistics="reset",
    ),
}


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    """The fusions' own scores and files, computed once."""
    session = Session(Store(tmp_path_factory.mktemp("fused")))
    yield {
        name: (session.compute(request), session.compute(requests.FusionExportRequest(request)))
        for name, request in FUSIONS.items()
    }
    session.store.close()


@pytest.mark.parametrize("name", FUSIONS)
def test_python_fuses_as_the_page_does(name, fused):
    score, file = fused[name]
    found = run(as_code.python(FUSIONS[name]))
    merged = found.get("merged") or {
        f"heads.{k}.{key}": value
        for k, head in enumerate(found["heads"])
        for key, value in head.items()
    }
    for key, value in safetensors.torch.load(file.data).items():
        torch.testing.assert_close(merged[key], value, rtol=1e-5, atol=1e-5)
    assert found["accuracies"] == pytest.approx([task.accuracy for task in score.tasks])


@pytest.mark.parametrize("name", FUSIONS)
def test_a_command_asks_for_the_fusion_of_the_page(name, capsys, monkeypatch):
    asked: list[requests.Request] = []

    def run(self, request):
        asked.append(request)
        raise merging.MergingError("enough")

    monkeypatch.setattr(Session, "run", run)
    for wanted in (FUSIONS[name], requests.FusionExportRequest(FUSIONS[name], "folder")):
        assert main(words_of(wanted)) == 1
        assert asked.pop() == wanted
    assert "enough" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a part of a family", "a run"])
def test_a_command_fuses_as_the_page_does(name, fused, capsys):
    score, file = fused[name]
    found = command(requests.FusionExportRequest(FUSIONS[name]), capsys)
    assert found["accuracy by task"] == [task.accuracy for task in score.tasks]
    for key, value in safetensors.torch.load(file.data).items():
        np.testing.assert_array_equal(written("merged.safetensors")[key], value)


def test_a_fusion_is_written_to_a_file(fused):
    run(as_code.python(requests.FusionExportRequest(FUSIONS["a run"])))
    expected = safetensors.torch.load(fused["a run"][1].data)
    for key, value in written("merged.safetensors").items():
        np.testing.assert_allclose(value, expected[key], rtol=1e-5, atol=1e-6)


def uploaded_family(store: Store, data: str) -> requests.Family:
    """Two models of a family in half precision and their base, kept in a store, and as files."""
    family, marks = merging.load_family("mnist-classes"), []
    uploaded = {"1": family.models[0], "2": family.models[3], "base": family.base}
    for name, params in uploaded.items():
        file = Path(f"{name}.safetensors")
        merging.write_checkpoint(file, {key: value.half() for key, value in params.items()})
        marks.append(keep_checkpoint(file, file.name, store))
    on = () if not data else (requests.Examples(data, load_dataset(data).fingerprint),)
    one, two, base = (mark.fingerprint for mark in marks)
    known = (0 if on else -1,) * 2
    return requests.Family(marks[0].config, (one, two), on, known, base, on[0] if on else None)


@pytest.mark.parametrize("data", ["mnist", ""])
def test_a_fusion_of_uploaded_models_runs_on_their_files(data, tmp_path, capsys):
    store = Store(tmp_path / "mine")
    wanted = requests.fusion(uploaded_family(store, data), "task_arithmetic", weights=(0.5, 0.5))
    exported = requests.FusionExportRequest(wanted)
    assert as_code.note(wanted) == (
        "Put your own files here: `1.safetensors` to `2.safetensors` for your models, "
        "`base.safetensors` for their base."
    )
    expected = safetensors.torch.load(Session(store).compute(exported).data)
    command(exported, capsys)
    by_command = safetensors.torch.load_file("merged.safetensors")
    run(as_code.python(exported))
    by_python = safetensors.torch.load_file("merged.safetensors")
    for key, value in expected.items():
        assert value.dtype == by_command[key].dtype == by_python[key].dtype == torch.float16
        torch.testing.assert_close(by_command[key], value)
        torch.testing.assert_close(by_python[key], value)
    store.close()


def test_models_of_other_widths_are_fused_from_their_files(tmp_path, capsys):
    store, marks = Store(tmp_path / "mine"), []
    for k, widths in enumerate(([784, 12, 10], [784, 9, 10]), start=1):
        params = build_model({"architecture": "mlp", "widths": widths}, seed=k).state_dict()
        merging.write_checkpoint(f"{k}.safetensors", params)
        marks.append(keep_checkpoint(Path(f"{k}.safetensors"), f"{k}", store))
    examples = requests.Examples("mnist", load_dataset("mnist").fingerprint)
    wanted = requests.fusion(requests.uploaded_family(marks, examples=examples), "transport")
    expected = safetensors.torch.load(
        Session(store).compute(requests.FusionExportRequest(wanted)).data
    )
    score = Session(store).compute(wanted)
    found = run(as_code.python(wanted))
    assert found["accuracies"] == pytest.approx([score.accuracy])
    said = command(requests.FusionExportRequest(wanted), capsys)
    assert said["as wide as"] == "1.safetensors"
    by_command = safetensors.torch.load_file("merged.safetensors")
    for key, value in expected.items():
        torch.testing.assert_close(by_command[key], value)
        torch.testing.assert_close(found["merged"][key], value)
    store.close()


@pytest.mark.parametrize("name", ["zipped in part", "zipped in part, of one task"])
def test_heads_of_their_own_are_written_to_one_file(name, fused):
    run(as_code.python(requests.FusionExportRequest(FUSIONS[name])))
    expected = safetensors.torch.load(fused[name][1].data)
    found = written("merged.safetensors")
    assert set(found) == set(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("rule", "order"), [("gradient_matching", ""), ("fisher", "first")])
def test_curvature_from_optimizers_is_read_from_the_files(rule, order, tmp_path, capsys):
    family, store, kept = merging.load_family("mnist-classes"), Store(tmp_path / "mine"), []
    for k, name in enumerate(("1", "2", "base")):
        family.model.load_state_dict([*family.models[:2], family.base][k])
        optimizer = torch.optim.Adam(family.model.parameters(), lr=1e-4)
        inputs, targets = next(iter(family.data.train))
        torch.nn.functional.cross_entropy(family.model(inputs), targets).backward()
        optimizer.step()
        states = {"model": family.model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(states, f"{name}.pt")
        kept.append(keep_checkpoint(Path(f"{name}.pt"), f"{name}.pt", store))
    marks = [one.fingerprint for one in kept]
    whole = requests.Family(kept[0].config, tuple(marks[:2]), (), (-1, -1), marks[2])
    own = [one.second_moment for one in kept]
    moments = requests.Moments(tuple(own[:2]), own[2], scale=5000.0)
    if order:
        whole, moments = whole.without_base(), moments.without_base()
    wanted = requests.fusion(
        whole, rule, moments=moments,
        order=requests.OrderRequest(whole, order) if order else None,
    )  # fmt: skip
    assert requests.from_payload(wanted.payload) == wanted
    exported = requests.FusionExportRequest(wanted)
    expected = safetensors.torch.load(Session(store).compute(exported).data)
    assert "`1.pt` to `2.pt` for your models" in as_code.note(wanted)
    command(exported, capsys)
    by_command = safetensors.torch.load_file("merged.safetensors")
    run(as_code.python(exported))
    by_python = safetensors.torch.load_file("merged.safetensors")
    for key, value in expected.items():
        torch.testing.assert_close(by_command[key], value)
        torch.testing.assert_close(by_python[key], value)
    store.close()


def test_several_tasks_of_uploaded_models_have_no_code():
    strangers = replace(MODELS, models=("1", "2", "3", "4", "5"))
    with pytest.raises(UnknownNameError, match="uploaded with several tasks"):
        as_code.python(requests.fusion(strangers, "average"))
