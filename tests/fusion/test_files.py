"""Files in, a file out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import merging
from merging.checkpoints import open_checkpoint
from merging.errors import CheckpointError, MergingError, StoppedError, UnknownNameError
from merging.fusion import fuse, fuse_files
from tests.fusion.given import BASE, FISHERS, MODELS, STATISTICS, assert_equal, state

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def paths(tmp_path):
    """The base and three models."""
    files = [tmp_path / f"{name}.safetensors" for name in ("base", "a", "b", "c")]
    for path, params in zip(files, (BASE, *MODELS), strict=True):
        merging.write_checkpoint(path, params)
    return files


@pytest.mark.parametrize("rule", ["average", "ties", "krum", "swa", "model_stock"])
def test_a_file_holds_what_fusing_in_memory_gives(rule, paths, tmp_path):
    needs_base = rule in {"ties", "model_stock"}
    done = fuse_files(rule, paths[1:], tmp_path / "out.safetensors",
                      base=paths[0] if needs_base else None)  # fmt: skip
    found, meta = merging.read_checkpoint(tmp_path / "out.safetensors")
    assert_equal(found, fuse(rule, models=MODELS, base=BASE if needs_base else None))
    assert json.loads(meta["recipe"]) == done.recipe
    assert done.recipe["models"] == ["a.safetensors", "b.safetensors", "c.safetensors"]
    assert done.files == (tmp_path / "out.safetensors",)


def test_curvature_comes_from_files_too(paths, tmp_path):
    for k, fisher in enumerate(FISHERS):
        merging.write_checkpoint(tmp_path / f"fisher{k}.safetensors", fisher | {
            "norm.num_batches_tracked": torch.tensor(0)})  # fmt: skip
    fishers = [tmp_path / f"fisher{k}.safetensors" for k in range(3)]
    fuse_files("fisher", paths[1:], tmp_path / "out.safetensors", fishers=fishers)
    found, _ = merging.read_checkpoint(tmp_path / "out.safetensors")
    assert_equal(found, fuse("fisher", models=MODELS, fishers=FISHERS))


def test_a_folder_gets_weights_a_card_and_the_config(paths, tmp_path):
    first = tmp_path / "first"
    first.mkdir()
    paths[1].rename(first / "model.safetensors")
    (first / "config.json").write_text('{"model_type": "tiny"}')
    done = fuse_files("average", [first, *paths[2:]], tmp_path / "out", weights=[1, 2, 3])
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["README.md", "config.json", "model.safetensors"]
    assert (tmp_path / "out/config.json").read_text() == '{"model_type": "tiny"}'
    card = (tmp_path / "out/README.md").read_text("utf-8")
    assert card == done.card
    for part in ("# Weighted mean of 3 models", "- `b.safetensors`, weight 2", "arXiv 2203.05482"):
        assert part in card
    found, _ = merging.read_checkpoint(tmp_path / "out")
    assert_equal(found, fuse("average", models=MODELS, weights=[1, 2, 3]))


def test_what_was_in_shards_is_in_shards_again(paths, tmp_path):
    sharded = tmp_path / "sharded"
    sharded.mkdir()
    halves = [list(MODELS[0])[:3], list(MODELS[0])[3:]]
    homes = {}
    for k, names in enumerate(halves, start=1):
        file = f"model-{k:05}-of-00002.safetensors"
        merging.write_checkpoint(sharded / file, {n: MODELS[0][n] for n in names})
        homes |= dict.fromkeys(names, file)
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": homes}))
    done = fuse_files("average", [sharded, paths[2]], tmp_path / "out")
    assert len(done.files) == 2
    assert all(path.exists() for path in done.files)
    found, meta = merging.read_checkpoint(tmp_path / "out")
    assert_equal(found, fuse("average", models=MODELS[:2]))
    assert meta["shards"] == "2"


def test_shards_hold_no_more_than_they_may_unless_it_is_one_tensor(paths, tmp_path):
    done = fuse_files("average", paths[1:], tmp_path / "out", shard_bytes=60)
    for path in done.files:
        with open_checkpoint(path) as shard:
            assert len(shard) == 1 or sum(s.nbytes for s in shard.specs.values()) <= 60
    assert len(done.files) > 2
    assert_equal(merging.read_checkpoint(tmp_path / "out")[0], fuse("average", models=MODELS))


def test_types_are_the_first_models_or_the_one_that_is_asked_for(tmp_path):
    files = [tmp_path / f"{k}.safetensors" for k in range(2)]
    for k, path in enumerate(files):
        merging.write_checkpoint(path, state(k, torch.bfloat16))
    for dtype, expected in ((None, torch.bfloat16), (torch.float32, torch.float32)):
        out = tmp_path / f"{dtype}.safetensors"
        fuse_files("average", files, out, dtype=dtype)
        with open_checkpoint(out) as found:
            assert found.specs["fc.weight"].dtype == expected
            assert found.specs["norm.num_batches_tracked"].dtype == torch.int64


def test_statistics_follow_the_policy(paths, tmp_path):
    fuse_files("average", paths[1:], tmp_path / "out.safetensors", buffers="first")
    found, _ = merging.read_checkpoint(tmp_path / "out.safetensors")
    assert_equal(found, MODELS[0], names=STATISTICS)


@pytest.mark.parametrize("out", ["out.safetensors", "out"])
def test_a_stop_leaves_nothing_behind(paths, tmp_path, out):
    def stop(done: float, total: float, note: str) -> None:
        if done >= total / 2:
            raise StoppedError("stopped")

    before = sorted(tmp_path.iterdir())
    with pytest.raises(StoppedError, match="stopped"):
        fuse_files("average", paths, tmp_path / out, on_progress=stop)
    assert sorted(tmp_path.iterdir()) == before


def test_what_cannot_be_is_said_and_nothing_is_written(paths, tmp_path):
    out = tmp_path / "out.safetensors"
    with pytest.raises(MergingError, match=r"a\.safetensors: this is there already"):
        fuse_files("average", paths, paths[1])
    with pytest.raises(MergingError, match="positive number of bytes, not 0"):
        fuse_files("average", paths, out, shard_bytes=0)
    with pytest.raises(CheckpointError, match="no such file"):
        fuse_files("average", [tmp_path / "absent"], out)
    with pytest.raises(MergingError, match="TIES needs the base"):
        fuse_files("ties", paths, out)
    with pytest.raises(MergingError, match="Greedy soup needs the architecture"):
        fuse_files("greedy_soup", paths, out)
    with pytest.raises(UnknownNameError, match="unknown rule 'sum'"):
        fuse_files("sum", paths, out)
    assert not out.exists()


MEMORY = """
import re, sys, torch
from pathlib import Path
from merging.fusion import fuse_files
torch.set_num_threads(1)
def memory(kind):
    return int(re.search(kind + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
rule, folder = sys.argv[1:]
small, large = f"{folder}/small", f"{folder}/large"
fuse_files(rule, [small] * 3, f"{folder}/first.safetensors", base=small)  # what is loaded once
Path("/proc/self/clear_refs").write_text("5")
before = memory("VmRSS")
fuse_files(rule, [large] * 3, f"{folder}/out.safetensors", base=large)
sys.stdout.write(str(memory("VmHWM") - before))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("rule", ["average", "ties"])
def test_memory_holds_a_tensor_per_model_and_little_more(rule, tmp_path):
    width, models = 3000, 3  # 36 MB a tensor
    for name, n in (("small", 4), ("large", width)):
        merging.write_checkpoint(tmp_path / name, {f"w{k}": torch.ones(n, n) for k in range(3)})
    words = [sys.executable, "-c", MEMORY, rule, str(tmp_path)]
    run = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) <= (models + 2) * width**2 * 4 + 100_000_000
