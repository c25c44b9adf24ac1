"""`python -m merging fuse`: families and files in, scores and files out."""

from __future__ import annotations

import copy
import json
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import safe_open

import merging
from merging.cli.main import main
from merging.files.checkpoints.read import read_checkpoint
from merging.files.checkpoints.write import write_checkpoint
from merging.files.data.bundled import load_dataset
from merging.landscape import evaluate


@pytest.fixture(autouse=True)
def own_store(tmp_path, monkeypatch):
    monkeypatch.setenv("ONE_BASIN_STORE", str(tmp_path / "store"))


def run(capsys, *words):
    code = main(["fuse", *map(str, words), "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else err


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Three models, and their base, as files."""
    folder, family = tmp_path_factory.mktemp("models"), merging.load_family("mnist-classes")
    for k, params in enumerate(family.models[:3]):
        write_checkpoint(folder / f"{k}.safetensors", params)
    write_checkpoint(folder / "base.safetensors", family.base)
    return folder


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Two models and their base, with the state of Adam that they were trained by."""
    folder, family = tmp_path_factory.mktemp("checkpoints"), merging.load_family("mnist-classes")
    pairs = [(family.models[0], family.tasks[0]), (family.models[1], family.tasks[1])]
    for name, (params, data) in zip(
        ("0.pt", "1.pt", "base.pt"), [*pairs, (family.base, family.data)], strict=True
    ):
        model = copy.deepcopy(family.model)
        model.load_state_dict(params)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
        for x, y in list(data.train)[:8]:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        torch.save(
            {"model": model.state_dict(), "optimizer": optimizer.state_dict()}, folder / name
        )
    return [folder / name for name in ("0.pt", "1.pt", "base.pt")]


def three(files):
    return [files / f"{k}.safetensors" for k in range(3)]


def test_a_bundled_family_is_fused_and_judged(capsys):
    code, found = run(capsys, "mnist-classes", "--rule", "ties", "--option", "density=0.5")
    assert code == 0
    assert len(found["accuracy by task"]) == 5
    assert 0.5 < found["accuracy"] < 1
    assert found["gradient mismatch"] > 0


def test_a_coefficient_is_chosen_on_validation_examples(capsys):
    code, found = run(capsys, "mnist-classes", "--rule", "wise_ft", "--tune")
    assert code == 0
    assert 0 < found["best on validation examples"]["t"] <= 1
    code, message = run(capsys, "mnist-classes", "--rule", "average", "--tune")
    assert code == 1
    assert "Weighted mean has no coefficient to tune" in message


def test_files_are_fused_tensor_by_tensor(capsys, files, tmp_path):
    out = tmp_path / "merged.safetensors"
    words = ["--rule", "task_arithmetic", "--base", files / "base.safetensors", "--weights", "0.3"]
    code, found = run(capsys, *three(files), *words, "--out", out)
    assert (code, found["written"]) == (0, [str(out)])
    models = [read_checkpoint(path)[0] for path in three(files)]
    base = read_checkpoint(files / "base.safetensors")[0]
    wanted = merging.fuse("task_arithmetic", models=models, base=base, weights=[0.3] * 3)
    for name, value in read_checkpoint(out)[0].items():
        torch.testing.assert_close(value, wanted[name])


def test_uploaded_models_are_judged_written_with_their_card_and_made_again(capsys, files, tmp_path):
    out, recipe = tmp_path / "merged.zip", tmp_path / "recipe.json"
    words = [*three(files), "--base", files / "base.safetensors", "--data", "mnist"]
    words += ["--rule", "gradient_matching", "--weights", "0.3,0.3,0.3"]
    code, found = run(capsys, *words, "--out", out, "--recipe-out", recipe)
    assert code == 0
    assert found["accuracy"] > 0.5
    with zipfile.ZipFile(out) as archive:
        assert {"model.safetensors", "README.md", "recipe.json"} <= set(archive.namelist())
    assert main(["replay", str(recipe), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["equal"]


@pytest.mark.parametrize("name", ["merged.zip", "merged.safetensors"])
def test_a_file_is_made_again_from_its_recipe(name, capsys, files, tmp_path):
    recipe = tmp_path / "recipe.json"
    words = [*three(files), "--order", "first", "--out", tmp_path / name]
    assert run(capsys, *words, "--recipe-out", recipe)[0] == 0
    assert main(["replay", str(recipe), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["equal"]


def test_files_that_are_fused_alone_have_a_recipe_too(capsys, files, tmp_path):
    recipe = tmp_path / "recipe.json"
    words = [*three(files), "--out", tmp_path / "merged.safetensors", "--recipe-out", recipe]
    assert run(capsys, *words)[0] == 0
    assert main(["replay", str(recipe), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["equal"]


@pytest.mark.parametrize("more", [[], ["--order", "first"]])
def test_the_prefix_of_the_first_file_is_put_back(more, capsys, files, tmp_path):
    wrapped, out = tmp_path / "wrapped.safetensors", tmp_path / "merged.safetensors"
    params = read_checkpoint(files / "2.safetensors")[0]
    write_checkpoint(wrapped, {f"module.{name}": value for name, value in params.items()})
    code, _ = run(capsys, wrapped, files / "0.safetensors", *more, "--out", out)
    assert code == 0
    with safe_open(out, framework="pt") as file:
        assert set(file.keys()) == {f"module.{name}" for name in params}
    code, _ = run(capsys, files / "0.safetensors", wrapped, *more, "--out", tmp_path / "b.zip")
    assert code == 0
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        assert set(safetensors.torch.load(archive.read("model.safetensors"))) == set(params)


def test_a_recipe_of_another_model_is_refused(capsys, files, tmp_path):
    recipe, moved = tmp_path / "recipe.json", tmp_path / "moved.safetensors"
    moved.write_bytes((files / "1.safetensors").read_bytes())
    words = [files / "0.safetensors", moved, "--data", "mnist", "--recipe-out", recipe]
    assert run(capsys, *words)[0] == 0
    moved.write_bytes((files / "2.safetensors").read_bytes())
    assert main(["replay", str(recipe), "--json"]) == 1
    assert "moved.safetensors is not the model that the recipe was made with" in (
        capsys.readouterr().err
    )


def test_models_of_different_seeds_are_lined_up(capsys):
    naive = run(capsys, "mnist-seeds")[1]["accuracy"]
    aligned = run(capsys, "mnist-seeds", "--order", "first")[1]["accuracy"]
    assert naive + 0.3 < aligned


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nobody"], "'nobody' is not a bundled family or pair"),
        (["mnist-seeds", "--rule", "ties"], "TIES needs a base model"),
        (["mnist-classes", "--weights", "a,b"], "--weights takes numbers with commas between"),
        (["mnist-classes", "--weights", "1,2"], "5 models have 2 weights"),
        (["mnist-classes", "--rule", "ties", "--option", "depth=1"], "TIES has no option 'depth'"),
    ],
)
def test_what_is_wrong_is_said(capsys, words, message):
    code, said = run(capsys, *words)
    assert code == 1
    assert message in said


def test_without_examples_a_file_must_be_asked_for(capsys, files):
    code, said = run(capsys, *three(files))
    assert code == 1
    assert "without examples there is nothing to report: give --data, or --out" in said


def test_some_models_of_a_family_are_fused_without_their_base(capsys):
    code, found = run(capsys, "mnist-classes", "--members", "0,2,0", "--no-base")
    assert code == 0
    assert len(found["distances from the models"]) == 2
    assert len(found["accuracy by task"]) == 5
    code, message = run(capsys, "mnist-classes", "--members", "0,5")
    assert code == 1
    assert "--members takes numbers from 0 to 4" in message


def by_moments(checkpoints, rule, scale=1e6, **options):
    """The fusion by direct calls."""
    states = [read_checkpoint(path)[0] for path in checkpoints]
    fishers = [
        {name: scale * value for name, value in merging.adam_second_moment(path).items()}
        for path in checkpoints
    ]
    return merging.fuse(
        rule, models=states[:2], base=states[2], fishers=fishers[:2], base_fisher=fishers[2],
        **options,
    )  # fmt: skip


def test_curvature_comes_from_the_optimizers_file_by_file(capsys, checkpoints, tmp_path):
    out = tmp_path / "merged.safetensors"
    words = ["--rule", "gradient_matching", "--base", checkpoints[2], "--option", "delta=0.5"]
    words += ["--fisher-from", "optimizer", "--moment-scale", "5000", "--out", out]
    code, found = run(capsys, *checkpoints[:2], *words)
    assert (code, found["written"]) == (0, [str(out)])
    expected = by_moments(checkpoints, "gradient_matching", 5000, options={"delta": 0.5})
    for name, value in read_checkpoint(out)[0].items():
        torch.testing.assert_close(value, expected[name])


def test_merges_by_the_optimizers_curvature_are_judged_and_made_again(
    capsys, checkpoints, tmp_path
):
    recipe = tmp_path / "recipe.json"
    words = ["--rule", "fisher", "--base", checkpoints[2], "--data", "mnist"]
    words += ["--fisher-from", "optimizer", "--recipe-out", recipe]
    code, found = run(capsys, *checkpoints[:2], *words)
    assert code == 0
    merged = by_moments(checkpoints, "fisher")
    data = load_dataset("mnist").test
    model = merging.load_family("mnist-classes").model
    assert found["accuracy"] == pytest.approx(float(evaluate(model, merged, data).accuracy[0]))
    assert main(["replay", str(recipe), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["equal"]


@pytest.mark.parametrize("data", [["--data", "mnist"], ["--out", "merged.safetensors"]])
def test_a_checkpoint_without_an_optimizer_is_named(capsys, checkpoints, files, data):
    words = ["--rule", "fisher", "--fisher-from", "optimizer", *data]
    code, said = run(capsys, checkpoints[0], files / "1.safetensors", *words)
    assert code == 1
    assert "1.safetensors: holds no state of an optimizer" in said


def test_bundled_models_have_no_optimizer(capsys):
    code, said = run(capsys, "mnist-mild", "--rule", "fisher", "--fisher-from", "optimizer")
    assert code == 1
    assert "bundled models come without the state of an optimizer" in said


def test_a_base_without_an_optimizer_is_said(capsys, checkpoints, files):
    words = ["--rule", "gradient_matching", "--base", files / "base.safetensors"]
    words += ["--fisher-from", "optimizer", "--data", "mnist"]
    code, said = run(capsys, *checkpoints[:2], *words)
    assert code == 1
    assert "Gradient matching needs Adam's second moment of the base" in said


@pytest.mark.parametrize("ending", ["pt", "pth", "bin"])
@pytest.mark.parametrize("judged", [False, True])
def test_a_name_of_pytorch_gets_a_file_that_torch_loads(capsys, files, tmp_path, ending, judged):
    out = tmp_path / f"x.{ending}"
    pair = three(files)[:2]
    if judged:
        x, y = next(iter(load_dataset("mnist").test))
        np.savez(tmp_path / "examples.npz", x=x[:50].numpy(), y=y[:50].numpy())
    data = ["--data", tmp_path / "examples.npz"] if judged else []
    assert run(capsys, *pair, *data, "--out", out)[0] == 0
    found = torch.load(out, weights_only=True)
    a, b = (read_checkpoint(path)[0] for path in pair)
    assert set(found) == set(a)
    for name, value in found.items():
        torch.testing.assert_close(value, (a[name] + b[name]) / 2)


@pytest.mark.parametrize("ending", ["ckpt", "onnx", "gguf"])
def test_a_name_of_what_is_not_written_is_refused(capsys, files, tmp_path, ending):
    code, said = run(capsys, *three(files), "--out", tmp_path / f"x.{ending}")
    assert code != 0
    assert f"x.{ending}: .{ending} files are not written; choose a name" in said
    assert list(tmp_path.glob("x*")) == []
