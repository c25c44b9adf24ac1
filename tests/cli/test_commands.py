"""The command line: the same results as the library's, of bundled pairs and of files."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import safetensors.torch
import torch

import merging
from merging.cli.main import main
from tests.models.exported.test_pt2_archive import Small, exported

PAIR = "two-unit-counterexample"


@pytest.fixture(autouse=True)
def _store(tmp_path, monkeypatch):
    monkeypatch.setenv("ONE_BASIN_STORE", str(tmp_path / "store"))


def run(capsys, *words: str) -> dict:
    assert main([*words, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def refused(capsys, *words: str) -> str:
    assert main(list(words)) == 1
    return capsys.readouterr().err


@pytest.fixture
def files(tmp_path):
    """Checkpoints of a bundled architecture that differ in the order of the units only."""
    pair = merging.load_pair("digits-mlp-256")
    spec = merging.find_symmetry(pair.model, (torch.zeros(2, 64),))
    perms = merging.random_permutations(spec, torch.Generator().manual_seed(3))
    names = [str(tmp_path / f"{letter}.safetensors") for letter in "ab"]
    merging.write_checkpoint(names[0], pair.params_a)
    merging.write_checkpoint(names[1], merging.permute(spec, perms, pair.params_a))
    return names


def test_inspect_says_what_fits_and_what_may_be_permuted(files, capsys):
    found = run(capsys, "inspect", *files)
    assert found["do not fit"] == 0
    assert found["config"]["architecture"] == "mlp"
    assert [group["units"] for group in found["symmetry"]["groups"]] == [256, 256, 256]


def test_match_writes_the_permutation_that_undoes_a_planted_one(files, tmp_path, capsys):
    out = str(tmp_path / "aligned.safetensors")
    found = run(capsys, "match", *files, "--out", out)
    assert found["certificate"] <= 1e-9
    aligned = safetensors.torch.load_file(out)
    original = safetensors.torch.load_file(files[0])
    assert all(torch.equal(aligned[name], original[name]) for name in original)


def test_a_permutation_is_written_as_arrays(files, tmp_path, capsys):
    out = str(tmp_path / "found.npz")
    run(capsys, "match", *files, "--out", out, "--option", "restarts=1", "--seed", "4")
    with np.load(out) as file:
        assert sorted(map(len, file.values())) == [256, 256, 256]


def test_interpolate_gives_the_library_s_curve(files, capsys):
    found = run(
        capsys, "interpolate", *files, "--data", "digits", "--method", "naive", "--lams", "5"
    )
    pair = merging.load_pair("digits-mlp-256")
    a, b = (safetensors.torch.load_file(file) for file in files)
    curve = merging.interpolate(pair.model, a, b, pair.data.test, 5)
    assert found["loss"] == pytest.approx(curve.loss.tolist(), rel=1e-6)
    assert found["barriers"]["linear"]["value"] == pytest.approx(curve.barrier("linear"), rel=1e-5)


def test_merge_of_equal_models_is_the_model(files, tmp_path, capsys):
    out = str(tmp_path / "merged.safetensors")
    run(capsys, "merge", *files, "--out", out, "--lam", "0.25")
    merged, original = safetensors.torch.load_file(out), safetensors.torch.load_file(files[0])
    assert all(torch.allclose(merged[n], original[n], atol=1e-6) for n in original)


def test_surface_of_a_bundled_pair(capsys):
    found = run(capsys, "surface", PAIR, "--level", "0")
    assert np.isfinite(found["loss"]).all()
    assert np.array(found["loss"]).shape == (9, 9)
    assert {point["name"] for point in found["points"]} >= {"A", "B"}


def test_exported_architectures_need_no_data(tmp_path, capsys):
    names = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        path = tmp_path / f"{seed}.pt2"
        path.write_bytes(exported(Small(), torch.randn(2, 1, 8, 8)))
        names.append(str(path))
    found = run(capsys, "match", *names)
    assert set(found["units moved"]) == {"conv.weight[0]", "gate.weight[0].0"}
    assert "no examples" in refused(capsys, "interpolate", *names)


def test_a_replayed_recipe_gives_the_same_bytes(files, tmp_path, capsys):
    recipe = tmp_path / "recipe.json"
    run(capsys, "match", *files, "--recipe-out", str(recipe))
    assert run(capsys, "replay", str(recipe)) == {
        "equal": True,
        "differences": [],
        "result": json.loads(recipe.read_text())["result"],
    }


def test_what_is_made_again_has_a_recipe_that_makes_it_again(tmp_path, capsys):
    first, second = str(tmp_path / "first.json"), str(tmp_path / "second.json")
    run(capsys, "match", PAIR, "--recipe-out", first)
    run(capsys, "replay", first, "--recipe-out", second)
    assert run(capsys, "replay", second)["equal"]


def test_what_matching_will_take_is_no_part_of_what_is_compared(files, tmp_path, capsys):
    recipe = str(tmp_path / "recipe.json")
    run(capsys, "inspect", *files, "--recipe-out", recipe)
    assert run(capsys, "replay", recipe)["equal"]


def test_a_recipe_whose_result_differs_says_what_else_does(tmp_path, capsys):
    recipe = tmp_path / "recipe.json"
    run(capsys, "match", PAIR, "--recipe-out", str(recipe))
    changed = json.loads(recipe.read_text())
    changed["result"] = "0" * 64
    changed["versions"]["numpy"] = "0.1"
    recipe.write_text(json.dumps(changed))
    assert main(["replay", str(recipe), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["equal"]
    assert any(line.startswith("numpy: 0.1 then") for line in found["differences"])


def test_a_recipe_of_other_files_is_refused(files, tmp_path, capsys):
    recipe = tmp_path / "recipe.json"
    run(capsys, "match", *files, "--recipe-out", str(recipe))
    merging.write_checkpoint(files[1], merging.load_pair("digits-mlp-256").params_b)
    assert "not the model that the recipe was made with" in refused(capsys, "replay", str(recipe))


def test_the_function_of_the_one_who_starts_it_makes_the_model(tmp_path, monkeypatch, capsys):
    (tmp_path / "mymodels.py").write_text(
        "import torch\n"
        "def small():\n"
        "    net = torch.nn.Sequential(\n"
        "        torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2))\n"
        "    return net, (torch.zeros(2, 4),)\n"
        "def examples():\n"
        "    return torch.linspace(-1, 1, 32).reshape(8, 4), torch.arange(8) % 2\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONE_BASIN_MODEL", "")
    monkeypatch.setenv("ONE_BASIN_DATA", "")
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    names = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        net = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2))
        names.append(str(tmp_path / f"{seed}.pt"))
        torch.save(net.state_dict(), names[-1])
    found = run(capsys, "match", *names, "--model", "mymodels:small")
    assert list(found["units moved"]) == ["0.weight[0]"]
    own = ("--model", "mymodels:small", "--data", "mymodels:examples")
    curve = run(capsys, "interpolate", *names, *own, "--lams", "3", "--recipe-out", "r.json")
    assert len(curve["loss"]) == 3
    monkeypatch.setenv("ONE_BASIN_DATA", "")
    assert "start it with --data" in refused(capsys, "replay", "r.json", *own[:2])
    monkeypatch.setenv("ONE_BASIN_DATA", own[3])
    assert run(capsys, "replay", "r.json", *own[:2])["equal"] is True
    fused = run(
        capsys, "fuse", *names, *own, "--out", "fused.safetensors", "--recipe-out", "f.json"
    )
    assert fused["written"] == "fused.safetensors"
    assert run(capsys, "replay", "f.json", *own[:2])["equal"] is True


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["match", "no-such-pair"], "not a bundled pair"),
        (["match", "a", "b", "c"], "give two checkpoints"),
        (["match", "/nowhere/a.pt", "/nowhere/b.pt"], "no such file"),
        (["match", PAIR, "--method", "naive"], "not a matching method"),
        (["match", PAIR, "--option", "restarts"], "name=value"),
        (["match", PAIR, "--option", "nothing=1"], "nothing"),
        (["replay", "/nowhere/recipe.json"], "not a recipe"),
    ],
)
def test_what_is_wrong_is_said_without_a_traceback(words, message, capsys):
    error = refused(capsys, *words)
    assert message in error
    assert "Traceback" not in error


def test_numbers_are_predicted_with_a_squared_error(tmp_path, capsys):
    class Line(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.out = torch.nn.Linear(3, 5), torch.nn.Linear(5, 1)

        def forward(self, x):
            return self.out(torch.relu(self.hidden(x)))

    names, models = [], []
    for seed in (0, 1):
        torch.manual_seed(seed)
        models.append(Line())
        names.append(str(tmp_path / f"{seed}.pt2"))
        (tmp_path / f"{seed}.pt2").write_bytes(exported(models[-1], torch.randn(2, 3)))
    x = torch.randn(40, 3)
    rows = [f"{a},{b},{c},{a + 2 * b - c + 0.5}" for a, b, c in x.tolist()]
    (tmp_path / "t.csv").write_text("\n".join(["u,v,w,target", *rows]))
    found = run(capsys, "interpolate", *names, "--data", str(tmp_path / "t.csv"), "--lams", "3")
    order = np.random.default_rng(0).permutation(40)[20:]
    y = (x @ torch.tensor([1.0, 2.0, -1.0]) + 0.5)[order]
    direct = (models[0](x[order])[:, 0] - y).square().mean()
    assert found["loss"][0] == pytest.approx(float(direct.detach()), rel=1e-5)
    assert np.isnan(found["accuracy"]).all()


def test_a_hugging_face_folder_and_tokens(tmp_path, capsys, monkeypatch):
    transformers = pytest.importorskip("transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config = transformers.GPT2Config(
        n_layer=1, n_head=2, n_embd=8, vocab_size=20, n_positions=12, bos_token_id=0, eos_token_id=0
    )
    names = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        names.append(str(tmp_path / f"model{seed}"))
        transformers.GPT2LMHeadModel(config).save_pretrained(names[-1])
    np.savez(tmp_path / "text.npz", tokens=np.random.default_rng(0).integers(0, 20, (8, 10)))
    found = run(capsys, "match", *names)
    assert sum(found["units moved"].values()) > 0
    assert found["certificate"] <= 1e-9
    words = ("interpolate", *names, "--data", str(tmp_path / "text.npz"), "--lams", "3")
    curve = run(capsys, *words, "--method", "naive")
    assert curve["loss"] == pytest.approx([np.log(20)] * 3, rel=0.1)


def test_inspect_and_doctor_say_what_matching_will_take(files, capsys):
    found = run(capsys, "inspect", *files)["before you match"]
    assert found["largest_group"] == 256
    assert found["match_seconds"] > 0
    assert found["warnings"] == []
    assert np.isnan(found["points_per_second"])


def test_doctor_advises_against_aligning_models_of_one_start(files, capsys):
    original = safetensors.torch.load_file(files[0])
    merging.write_checkpoint(files[1], {n: v.half() for n, v in original.items()})
    found = run(capsys, "doctor", *files)
    assert "need no alignment" in found["advice"]
    assert found["shared_start"]
    assert any("B is in float16" in line for line in found["before you match"]["warnings"])


def test_a_frozen_group_does_not_move(files, tmp_path, capsys):
    spec = str(tmp_path / "spec.json")
    group = "layers.1.weight[0]"
    found = run(capsys, "inspect", *files, "--freeze", group, "--spec-out", spec)
    assert [g["name"] for g in found["symmetry"]["groups"]] == [
        "layers.0.weight[0]", "layers.2.weight[0]",
    ]  # fmt: skip
    assert json.loads((tmp_path / "spec.json").read_text())["layers.1.bias"] == [None]
    frozen = run(capsys, "match", *files, "--freeze", group)
    assert set(frozen["units moved"]) == {"layers.0.weight[0]", "layers.2.weight[0]"}
    assert run(capsys, "match", *files, "--spec", spec)["objective"] == frozen["objective"]


def test_a_recipe_holds_the_spec_that_was_chosen(files, tmp_path, capsys):
    recipe = tmp_path / "recipe.json"
    words = ("--freeze", "layers.1.weight[0]", "--recipe-out", str(recipe))
    run(capsys, "match", *files, *words)
    assert "layers.1.bias" in json.loads(json.loads(recipe.read_text())["spec"])
    assert run(capsys, "replay", str(recipe))["equal"]


def test_a_wrong_spec_is_refused_with_the_group_s_name(files, tmp_path, capsys):
    spec = tmp_path / "spec.json"
    spec.write_text('{"layers.0.weight": ["mine", null]}')
    assert "group 'mine' on layers.0.weight[0]" in refused(
        capsys, "match", *files, "--spec", str(spec)
    )


def test_what_is_merged_goes_back_in_the_form_that_it_came_in(tmp_path, capsys):
    pair = merging.load_pair("digits-mlp-256")
    names = [str(tmp_path / f"{letter}.pt") for letter in "ab"]
    for name, params in zip(names, (pair.params_a, pair.params_b), strict=True):
        torch.save({f"module.{key}": value.half() for key, value in params.items()}, name)
    for out in ("merged.safetensors", "merged.pt"):
        run(capsys, "merge", *names, "--out", str(tmp_path / out))
    merged = safetensors.torch.load_file(tmp_path / "merged.safetensors")
    again = torch.load(tmp_path / "merged.pt", weights_only=True)
    wrapped = torch.nn.DataParallel(copy.deepcopy(pair.model).half())
    wrapped.load_state_dict(merged, strict=True)
    assert set(merged) == set(again)
    assert {value.dtype for value in merged.values()} == {torch.float16}
    assert all(torch.equal(merged[name], again[name]) for name in merged)


def test_connect_trains_a_path_and_says_both_barriers(capsys):
    words = ("digits-mlp-256", "--method", "naive", "--kind", "chain")
    found = run(capsys, "connect", *words, "--path-option", "steps=60")
    assert found["kind"] == "chain"
    assert found["barriers"]["path"] < 0.2 * found["barriers"]["line"]
    assert len(found["positions"]) == len(found["loss"]) == 25
    assert "has no option 'pace'" in refused(capsys, "connect", *words, "--path-option", "pace=1")
