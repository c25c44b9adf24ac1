"""Files made to harm: each is refused with a clear error, at once, and nothing in it runs.

The sizes are those of attacks that fit into an upload; `test_the_worst_take_little_memory` runs
those that aim at memory in a process of their own and measures it.
"""

from __future__ import annotations

import io
import subprocess
import sys
import time
from pathlib import Path

import pytest

from merging.files.checkpoints.limits import DEFAULT_LIMITS
from merging.files.checkpoints.read import read_checkpoint_bytes
from merging.files.checkpoints.second_moment import open_second_moment
from merging.files.checkpoints.torch_zip import check_pt2, open_zip
from merging.files.data.read import read_data
from merging.models.exported.pt2_archive import read_pt2
from merging.schema.errors import CheckpointError, DataError, MergingError
from tests.hostile import examples, graphs, weights
from tests.hostile.builders import good_safetensors, index_of, pt2

NOWHERE = Path("canary")
SECONDS = 2
MEGABYTES = 200


def read_weights(data):
    return read_checkpoint_bytes(data, "mine")


def read_moment(data):
    with open_second_moment(data, "mine") as moment:
        return dict(moment)


def read_program(data):
    check_pt2(open_zip(io.BytesIO(data), "mine", DEFAULT_LIMITS), "mine")


def read_graph(data):
    return read_pt2(data, "mine")


def read_examples(data):
    return read_data(data, "mine")


def tables(marker):
    """Every row: name → (reader, what makes the file, what is said)."""
    groups = [
        (read_weights, weights.code_in_checkpoints(marker)),
        (read_weights, weights.plain_pickles(marker)),
        *((read_weights, g) for g in (weights.TORCH, weights.SAFE, weights.ZIPS, weights.SHARDS)),
        (read_moment, weights.ADAM),
        (read_program, weights.PT2),
        (read_graph, graphs.REFUSED),
        (read_examples, examples.code_in_batches(marker)),
        *((read_examples, g) for g in (examples.NPZ, examples.IMAGES, examples.CIFAR)),
        *((read_examples, g) for g in (examples.IDX, examples.TABLES)),
    ]
    return {name: (read, *row) for read, rows in groups for name, row in rows.items()}


ROWS = tables(NOWHERE)


def test_no_name_stands_for_two_files():
    assert len(ROWS) > 200


@pytest.mark.parametrize("row", ROWS)
def test_is_refused_clearly_at_once_and_runs_nothing(tmp_path, monkeypatch, row):
    monkeypatch.chdir(tmp_path)
    marker = tmp_path / "ran"
    read, make, match = tables(marker)[row]
    data = make()
    start = time.process_time()
    with pytest.raises(MergingError, match=match) as caught:
        read(data)
    assert time.process_time() - start < SECONDS
    assert not marker.exists()
    assert list(tmp_path.iterdir()) == []
    said = str(caught.value)
    assert said.startswith("mine")
    assert len(said) < 1000
    assert type(caught.value) in {CheckpointError, DataError}


def test_the_optimizers_that_are_refused_are_close_to_one_that_is_not():
    assert read_moment(weights.good_adam())["w"].shape == (3,)
    read_weights(weights.good_adam())


def test_the_programs_that_are_refused_are_close_to_one_that_is_not():
    read_program(pt2())


WORST = [
    "endless-steps", "many-marks", "deep-lists", "deep-dicts", "memo-list-bomb", "many-views",
    "view-of-a-terabyte", "header-of-dicts", "header-deep", "colliding-keys", "ratio-bomb",
    "many-entries", "overlapping", "npz-bomb", "image-bomb", "image-bomb-packed", "image-zip-bomb",
    "tar-bomb", "gzip-bomb", "idx-gzip-bomb", "csv-million-columns", "csv-open-quote",
    "cifar-endless", "too-many-tensors", "image-too-many", "adam-params-a-million-times",
    "adam-groups-all-the-same", "adam-squares-expanded", "graph-doubles", "graph-nests-lists",
    "graph-lists-json", "graph-makes-a-terabyte", "graph-holds-much", "graph-cuts-into-many",
    "graph-recurs-for-ever", "graph-has-endless-calls", "graph-squares-a-size",
    "graph-raises-ten", "graph-nests-json",
]  # fmt: skip
PROGRAM = """
import resource, sys
from pathlib import Path
from tests.hostile.test_hostile import ROWS
from merging.schema.errors import MergingError

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

for name in sys.argv[2:]:
    read, data, before = ROWS[name][0], Path(sys.argv[1], name).read_bytes(), peak()
    try:
        read(data)
    except MergingError:
        sys.stdout.write(f"{name} {(peak() - before) // 1000}\\n")
"""


@pytest.mark.slow
def test_the_worst_take_little_memory(tmp_path):
    for row in WORST:
        (tmp_path / row).write_bytes(ROWS[row][1]())
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), *WORST],
        cwd=Path(__file__).resolve().parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    taken = {name: int(mb) for name, mb in map(str.split, run.stdout.splitlines())}
    assert list(taken) == WORST, run.stderr[-500:]
    assert sum(taken.values()) < MEGABYTES, taken  # each is what it took beyond those before it


@pytest.mark.parametrize(
    ("shard", "match"),
    [("../outside.safetensors", "not a file beside it"), ("none.safetensors", "are missing")],
)
def test_an_index_on_disk_cannot_lead_out_of_its_folder(tmp_path, shard, match):
    from merging.files.checkpoints.read import read_checkpoint

    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "outside.safetensors").write_bytes(good_safetensors("w"))
    (folder / "model.safetensors.index.json").write_bytes(index_of({"w": shard}))
    for path in (folder, folder / "model.safetensors.index.json"):
        with pytest.raises(CheckpointError, match=match):
            read_checkpoint(path)
