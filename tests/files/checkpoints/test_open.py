"""Folders, shards, Lightning files, zip files of models; reading and writing piece by piece."""

from __future__ import annotations

import argparse
import collections
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from merging.files.checkpoints.fingerprint import fingerprint
from merging.files.checkpoints.limits import DEFAULT_LIMITS, Limits
from merging.files.checkpoints.read import (
    TensorSpec,
    open_checkpoint,
    read_checkpoint,
    read_checkpoint_bytes,
    stream_checkpoint,
)
from merging.files.checkpoints.torch_zip import check_pt2, open_zip
from merging.files.checkpoints.write import checkpoint_bytes, write_checkpoint
from merging.schema.errors import CheckpointError, StoreError


def model():
    generator = torch.Generator().manual_seed(0)
    return {
        "0.weight": torch.randn(3, 4, generator=generator),
        "0.bias": torch.randn(3, generator=generator).half(),
        "1.weight": torch.randn(2, 3, generator=generator).bfloat16(),
        "1.steps": torch.tensor(7),
    }


def saved(value, **options):
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def write_shards(folder, save=checkpoint_bytes, ending="safetensors", stem="model"):
    params = model()
    shards = {f"{stem}-00001-of-00002.{ending}": ["0.weight", "1.steps"],
              f"{stem}-00002-of-00002.{ending}": ["0.bias", "1.weight"]}  # fmt: skip
    for name, keys in shards.items():
        (folder / name).write_bytes(save({key: params[key] for key in keys}))
    where = {key: name for name, keys in shards.items() for key in keys}
    index = {"metadata": {"total_size": 1}, "weight_map": where}
    (folder / f"{stem}.{ending}.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text('{"model_type": "tiny"}')


def zip_of(folder, top="", compression=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr(f"__MACOSX/{top}._model.safetensors", b"junk")
        if top:
            archive.mkdir(top)
        for path in folder.iterdir():
            archive.write(path, top + path.name)
    return file.getvalue()


# --- folders, shards and zip files of them ----------------------------------------------------


KINDS = [(checkpoint_bytes, "safetensors", "model"), (saved, "bin", "pytorch_model")]


@pytest.mark.parametrize(("save", "ending", "stem"), KINDS)
def test_shards_are_read_by_their_index(tmp_path, save, ending, stem):
    write_shards(tmp_path, save, ending, stem)
    for path in (tmp_path, tmp_path / f"{stem}.{ending}.index.json"):
        params, meta = read_checkpoint(path)
        assert fingerprint(params) == fingerprint(model())
        assert meta["shards"] == "2"
        assert meta["config"] == '{"model_type": "tiny"}'
        assert meta["files"] == ", ".join(f"{stem}-0000{k}-of-00002.{ending}" for k in (1, 2))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("top", ["", "my model/", "a/b/c/"])
@pytest.mark.parametrize(("save", "ending", "stem"), KINDS)
def test_a_zip_file_of_a_folder_is_read_in_place(tmp_path, save, ending, stem, top, compression):
    write_shards(tmp_path, save, ending, stem)
    params, meta = read_checkpoint_bytes(zip_of(tmp_path, top, compression), "mine.zip")
    assert fingerprint(params) == fingerprint(model())
    assert meta["shards"] == "2"


@pytest.mark.parametrize(("save", "ending", "stem"), KINDS)
def test_a_folder_with_one_file_of_weights_is_read(tmp_path, save, ending, stem):
    (tmp_path / f"{stem}.{ending}").write_bytes(save(model()))
    (tmp_path / "training_args.json").write_text("{}")
    params, meta = read_checkpoint(tmp_path)
    assert fingerprint(params) == fingerprint(model())
    assert meta["files"] == f"{stem}.{ending}"
    assert "shards" not in meta


def test_safetensors_come_before_pickles_and_usual_names_before_others(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(checkpoint_bytes(model()))
    (tmp_path / "adapter.safetensors").write_bytes(checkpoint_bytes({"x": torch.ones(1)}))
    (tmp_path / "pytorch_model.bin").write_bytes(saved({"x": torch.ones(1)}))
    assert set(read_checkpoint(tmp_path)[0]) == set(model())


def test_a_link_in_a_folder_is_followed_as_caches_of_downloads_need(tmp_path):
    (tmp_path / "blob").write_bytes(checkpoint_bytes(model()))
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "model.safetensors").symlink_to(tmp_path / "blob")
    assert fingerprint(read_checkpoint(tmp_path / "snapshot")[0]) == fingerprint(model())


def test_what_an_index_does_not_list_is_left_out_and_said(tmp_path):
    write_shards(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(
        index.read_text().replace('"1.steps": "model-00001-of-00002.safetensors", ', "")
    )
    params, meta = read_checkpoint(tmp_path)
    assert "1.steps" not in params
    assert meta["ignored"] == "'1.steps'"


def test_all_shards_together_are_held_to_the_limit(tmp_path):
    write_shards(tmp_path)
    with pytest.raises(CheckpointError, match="more than the limit of 300"):
        read_checkpoint(tmp_path, limits=Limits(max_bytes=300))


# --- training checkpoints ---------------------------------------------------------------------


def lightning(prefix, **more):
    return saved({
        "epoch": 3, "global_step": 10, "pytorch-lightning_version": "2.5.1",
        "state_dict": {prefix + key: value for key, value in model().items()},
        "loops": {"fit_loop": {"state": {}}}, "callbacks": {}, "optimizer_states": [{"state": {}}],
        "hyper_parameters": {"lr": 0.1, "sizes": (3, 4)}, **more,
    })  # fmt: skip


@pytest.mark.parametrize(
    "prefix", ["model.", "net.", "backbone.", "model._orig_mod.", "module.net."]
)
def test_the_prefix_of_a_lightning_module_is_cut_off_and_said(prefix):
    params, meta = read_checkpoint_bytes(lightning(prefix), "mine.ckpt")
    assert fingerprint(params) == fingerprint(model())
    assert meta["stripped_prefix"] == prefix
    assert meta["found_under"] == "state_dict"
    assert meta["format"] == "lightning"
    assert "and 2 more" in meta["ignored"]


def test_numbered_layers_of_a_lightning_module_are_no_prefix():
    data = saved({"pytorch-lightning_version": "2", "state_dict": {"0.weight": torch.ones(2)}})
    params, meta = read_checkpoint_bytes(data, "mine.ckpt")
    assert list(params) == ["0.weight"]
    assert "stripped_prefix" not in meta


def test_a_shared_first_part_stays_in_other_files():
    assert list(read_checkpoint_bytes(saved({"model.w": torch.ones(1)}), "m")[0]) == ["model.w"]


def test_settings_of_harmless_classes_are_left_out_and_not_made():
    settings = argparse.Namespace(
        lr=0.1, where=Path("runs"), seen={1, 2}, mean=np.float64(3), table=np.ones(3),
        default=collections.defaultdict(list),
    )  # fmt: skip
    data = lightning("net.", hyper_parameters=settings)
    params, meta = read_checkpoint_bytes(data, "mine.ckpt")
    assert fingerprint(params) == fingerprint(model())
    assert "stripped_prefix" in meta


def test_modules_among_the_settings_are_left_out_and_functions_that_harm_are_refused():
    data = lightning("net.", hyper_parameters={"schedule": torch.nn.Linear(1, 1)})
    assert fingerprint(read_checkpoint_bytes(data, "mine.ckpt")[0]) == fingerprint(model())
    data = lightning("net.", hyper_parameters={"schedule": eval})
    with pytest.raises(CheckpointError, match=r"holds '__builtin__.eval'.*not read"):
        read_checkpoint_bytes(data, "mine.ckpt")


# --- the same as PyTorch's own reader ---------------------------------------------------------


STATES = st.dictionaries(
    st.text("ab.0_ю", min_size=1, max_size=8),
    st.sampled_from(["float32", "float16", "float64", "int64", "int8", "uint8", "bool"]).flatmap(
        lambda dtype: hnp.arrays(
            dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)
        )
    ),
    min_size=1, max_size=4,
)  # fmt: skip


@given(STATES, st.integers(0, 5))
def test_reads_what_pytorch_reads(arrays, seed):
    params = {key: torch.from_numpy(np.asarray(a)) for key, a in arrays.items()}
    generator = torch.Generator().manual_seed(seed)
    for key, value in list(params.items()):
        if value.dim():
            order = torch.randperm(value.dim(), generator=generator).tolist()
            params[key + "/moved"] = value.permute(order)
            params[key + "/part"] = value[-1:]
            params[key + "/steps"] = value[::2]
    data = saved(params)
    expected = torch.load(io.BytesIO(data), weights_only=True)
    found, _ = read_checkpoint_bytes(data, "mine", require_finite=False)
    assert fingerprint(found) == fingerprint(expected)


@pytest.mark.parametrize("net", [
    torch.nn.LSTM(3, 4, 2), torch.nn.MultiheadAttention(4, 2), torch.nn.Embedding(5, 3),
    torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2)),
])  # fmt: skip
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.LBFGS, torch.optim.SGD])
def test_training_checkpoints_of_real_modules_are_read(net, optimizer):
    whole = {"model": net.state_dict(), "optimizer": optimizer(net.parameters()).state_dict(),
             "rng": torch.get_rng_state(), "dtype": torch.float32}  # fmt: skip
    params, _ = read_checkpoint_bytes(saved(whole), "mine")
    assert fingerprint(params) == fingerprint(net.state_dict())


def test_where_a_tensor_lay_when_it_was_saved_does_not_matter():
    for place in ("cuda:0", "mps", "xpu:7"):
        data = saved({"w": torch.ones(2)})
        old, new = b"X\x03\x00\x00\x00cpu", b"X" + bytes([len(place), 0, 0, 0]) + place.encode()
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = {e: archive.read(e).replace(old, new) for e in archive.namelist()}
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in entries.items():
                archive.writestr(name, content)
        assert new in entries["archive/data.pkl"]
        assert read_checkpoint_bytes(file.getvalue(), "m")[0]["w"].tolist() == [1, 1]


# --- one at a time ----------------------------------------------------------------------------


@pytest.mark.parametrize("save", [checkpoint_bytes, saved])
def test_an_open_checkpoint_is_a_mapping_that_reads_when_it_is_asked(tmp_path, save):
    path = tmp_path / "model"
    path.write_bytes(save(model()))
    with open_checkpoint(path) as checkpoint:
        assert set(checkpoint) == set(model())
        assert len(checkpoint) == 4
        assert checkpoint.specs["0.bias"] == TensorSpec((3,), torch.float16)
        assert fingerprint(checkpoint) == fingerprint(model())
        first, again = checkpoint["0.weight"], checkpoint.tensor("0.weight")
        first.zero_()
        torch.testing.assert_close(again, model()["0.weight"])
        with pytest.raises(KeyError):
            checkpoint["none"]
    with pytest.raises(CheckpointError, match=r"tensor '0.weight' cannot be read.*open the file"):
        checkpoint.tensor("0.weight")


def test_a_file_that_shrinks_while_it_is_open_is_an_error(tmp_path):
    path = tmp_path / "model.safetensors"
    write_checkpoint(path, {"w": torch.ones(100_000)})
    with open_checkpoint(path) as checkpoint:
        with path.open("rb+") as file:
            file.truncate(1000)
        with pytest.raises(CheckpointError, match="tensor 'w' is cut short"):
            checkpoint.tensor("w")


@given(STATES)
def test_what_is_streamed_is_what_safetensors_writes(arrays):
    import tempfile

    params = {key: torch.from_numpy(np.asarray(a)) for key, a in arrays.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.safetensors"
        write_checkpoint(path, params, {"note": "ü"})
        theirs = safetensors.torch.load_file(path)
        ours, meta = read_checkpoint(path, require_finite=False)
        assert meta["note"] == "ü"
        assert fingerprint(theirs) == fingerprint(ours) == fingerprint(params)


def test_a_stream_asks_for_each_tensor_once_and_keeps_dtypes(tmp_path):
    asked = []
    specs = {key: TensorSpec(tuple(t.shape), t.dtype) for key, t in model().items()}

    def tensor(name):
        asked.append(name)
        return model()[name]

    stream_checkpoint(tmp_path / "m", specs, tensor)
    assert sorted(asked) == sorted(specs)
    params, _ = read_checkpoint(tmp_path / "m")
    assert {key: t.dtype for key, t in params.items()} == {k: t.dtype for k, t in model().items()}


def test_a_stream_takes_tensors_in_blocks(tmp_path):
    whole = torch.arange(10.0).view(2, 5)
    specs = {"w": TensorSpec((2, 5), torch.float32)}
    stream_checkpoint(tmp_path / "m", specs, lambda _: iter(whole.view(-1).split(3)))
    assert torch.equal(read_checkpoint(tmp_path / "m")[0]["w"], whole)
    for blocks, wrong in (([whole[0]], r"\[5\] of torch.float32"),
                          ([whole.half()], r"\[2, 5\] of torch.float16")):  # fmt: skip
        with pytest.raises(CheckpointError, match=f"'w' is {wrong}, and .* was announced"):
            stream_checkpoint(tmp_path / "n", specs, lambda _, blocks=blocks: iter(blocks))
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("save", [write_checkpoint, lambda path, params: torch.save(params, path)])
def test_blocks_hold_the_entries_in_their_order(save, tmp_path):
    params = model() | {"across": torch.arange(12.0).view(3, 4).T, "none": torch.ones(0, 3)}
    params["part"] = torch.arange(9.0)[3:7]
    save(tmp_path / "m", params)
    with open_checkpoint(tmp_path / "m") as checkpoint:
        for name in checkpoint:
            blocks = [block.clone() for block in checkpoint.blocks(name, 5)]
            assert all(len(block) == 5 for block in blocks[:-1])
            whole = torch.cat([*blocks, torch.empty(0, dtype=params[name].dtype)])
            assert torch.equal(whole.view(params[name].shape), params[name])


def test_whether_a_tensor_is_there_is_known_without_reading_it(tmp_path):
    write_checkpoint(tmp_path / "m", {"w": torch.zeros(4)})
    checkpoint = open_checkpoint(tmp_path / "m")
    checkpoint.close()  # from here on nothing can be read
    assert "w" in checkpoint
    assert "v" not in checkpoint


def test_blocks_share_one_memory(tmp_path):
    write_checkpoint(tmp_path / "m", {"w": torch.arange(12.0)})
    with open_checkpoint(tmp_path / "m") as checkpoint:
        assert len({block.data_ptr() for block in checkpoint.blocks("w", 4)}) == 1


def test_blocks_of_a_file_that_has_become_shorter_or_was_closed_are_refused(tmp_path):
    write_checkpoint(tmp_path / "m", {"w": torch.zeros(100_000)})
    checkpoint = open_checkpoint(tmp_path / "m")
    blocks = checkpoint.blocks("w", 50_000)
    next(blocks)
    with (tmp_path / "m").open("r+b") as file:
        file.truncate(300_000)
    with pytest.raises(CheckpointError, match="m: tensor 'w' is cut short"):
        next(blocks)
    checkpoint.close()
    with pytest.raises(CheckpointError, match=r"tensor 'w' cannot be read .*; open the file again"):
        next(checkpoint.blocks("w", 5))


def test_a_stream_that_breaks_leaves_the_old_file(tmp_path):
    path = tmp_path / "m"
    path.write_bytes(b"old")
    with pytest.raises(
        CheckpointError, match=r"'w' is \[3\] of torch.float32, and \[2\] of torch.f"
    ):
        stream_checkpoint(path, {"w": TensorSpec((2,), torch.float32)}, lambda _: torch.ones(3))
    with pytest.raises(
        CheckpointError, match=r"has dtype torch.complex64, which cannot be written"
    ):
        stream_checkpoint(path, {"w": TensorSpec((2,), torch.complex64)}, lambda _: torch.ones(3))
    with pytest.raises(StoreError, match="cannot be written"):
        stream_checkpoint(tmp_path / "no" / "m", {}, lambda _: torch.ones(3))
    with pytest.raises(ZeroDivisionError):
        stream_checkpoint(path, {"w": TensorSpec((2,), torch.float32)}, lambda _: 1 / 0)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


PROGRAM = """
import resource, sys
import torch
from merging.files.checkpoints.read import TensorSpec, open_checkpoint, stream_checkpoint
torch.set_num_threads(1)
torch.ones(10) * 0.5
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
models = [open_checkpoint(path) for path in sys.argv[2:]]
mean = lambda name: sum(m.tensor(name).float() for m in models) / len(models)
specs = {k: TensorSpec(s.shape, torch.float32) for k, s in models[0].specs.items()}
stream_checkpoint(sys.argv[1], specs, mean)
sys.stdout.write(str((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1000))
"""


@pytest.mark.parametrize("save", [write_checkpoint, lambda path, params: torch.save(params, path)])
def test_many_large_models_are_averaged_in_the_memory_of_a_few_tensors(tmp_path, save):
    paths = [tmp_path / f"m{k}" for k in range(6)]
    for k, path in enumerate(paths):
        save(path, {f"w{j}": torch.full((1_000_000,), float(k)) for j in range(10)})  # 40 MB
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "mean"), *map(str, paths)],
        cwd=Path(__file__).resolve().parents[3], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.stdout, run.stderr[-500:]
    assert int(run.stdout) < 60
    assert read_checkpoint(tmp_path / "mean")[0]["w3"].unique().tolist() == [2.5]


# --- exported programs ------------------------------------------------------------------------


def test_an_exported_program_passes_its_guard_and_is_no_checkpoint():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.shift = torch.nn.Linear(3, 4), torch.ones(4)

        def forward(self, x):
            return self.layer(x) + self.shift

    file = io.BytesIO()
    torch.export.save(torch.export.export(Net(), (torch.ones(2, 3),)), file)
    check_pt2(open_zip(file, "mine.pt2", DEFAULT_LIMITS), "mine.pt2")
    with pytest.raises(CheckpointError, match=r"mine.pt2: this is an exported program \(.pt2\)"):
        read_checkpoint_bytes(file.getvalue(), "mine.pt2")
