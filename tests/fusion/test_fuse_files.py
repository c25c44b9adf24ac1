"""Files in, a file out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import merging
from merging.files.checkpoints.read import open_checkpoint
from merging.fusion import fuse, fuse_files
from merging.schema.cards.fusion.table import RULE_CARDS
from merging.schema.errors import CheckpointError, MergingError, StoppedError, UnknownNameError
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


def test_files_and_models_in_memory_may_be_mixed(tmp_path):
    models = [{**m, "empty": torch.zeros(0, 3), "long": torch.full((600_000,), float(k))}
              for k, m in enumerate(MODELS)]  # fmt: skip
    merging.write_checkpoint(tmp_path / "a.safetensors", models[0])
    with open_checkpoint(tmp_path / "a.safetensors") as first:
        found = fuse("average", models=[first, *models[1:]])
    assert_equal(found, fuse("average", models=models))
    assert found["long"].unique().tolist() == [1.0]


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
    with pytest.raises(MergingError, match="bytes of a shard must be positive, not 0"):
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


def test_the_number_of_threads_is_as_it_was_before(paths, tmp_path):
    seen, before = [], torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        fuse_files("average", paths, tmp_path / "out.safetensors",
                   on_progress=lambda *_: seen.append(torch.get_num_threads()))  # fmt: skip
        assert set(seen) == {1}
        assert torch.get_num_threads() == 2
        with pytest.raises(CheckpointError, match="no such file"):
            fuse_files("average", [tmp_path / "absent"], tmp_path / "other.safetensors")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


MEMORY = """
import json, re, sys, torch
from pathlib import Path
from merging.fusion import fuse_files
from merging.schema.cards.fusion.table import RULE_CARDS
torch.set_num_threads(1)
def memory(kind):
    return int(re.search(kind + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
def fused(card, name):
    n = card.most_models or 8
    path, out = f"{folder}/{name}", f"{folder}/{card.name}-{name}.safetensors"
    fuse_files(card.name, [path] * n, out, base=path, sizes=[1.0] * n,
               fishers=[path] * n, base_fisher=path)
    Path(out).unlink()
folder, rises = sys.argv[1], {}
for name in sys.argv[2:]:
    fused(RULE_CARDS[name], "small")  # what is loaded once
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    fused(RULE_CARDS[name], "large")
    rises[name] = memory("VmHWM") - before
sys.stdout.write(json.dumps(rises))
"""
ON_DISK = [card.name for card in RULE_CARDS.values() if not (card.needs_data or card.needs_grams)]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize(
    ("save", "rules"),
    [
        (merging.write_checkpoint, ON_DISK),
        (lambda path, params: torch.save(params, path), ["average", "ties"]),
    ],
)
def test_memory_holds_blocks_of_every_model_and_one_tensor_at_the_most(save, rules, tmp_path):
    largest = 16_000_000  # of eight models, a base and nine curvatures: all together 290 MB
    for name, n in (("small", 4), ("large", largest // 4)):
        save(tmp_path / name, {"a": torch.ones(n), "b": torch.ones(100)})
    words = [sys.executable, "-c", MEMORY, str(tmp_path), *rules]
    run = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    rises = json.loads(run.stdout)
    assert set(rises) == set(rules)
    assert all(rise < 6 * largest for rise in rises.values()), rises
