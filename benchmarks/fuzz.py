"""Readers of strangers' files under mutated files, for a bounded time.

`python benchmarks/run.py fuzz`, or `python -m benchmarks.fuzz 600` for ten minutes. Valid files of
every kind are damaged at random: bytes changed, cut, doubled, swapped between files. A reader may
read the result or refuse it with a `MergingError`; anything else is a failure and is kept.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import random
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from merging.files.checkpoints.limits import DEFAULT_LIMITS
from merging.files.checkpoints.read import read_checkpoint_bytes
from merging.files.checkpoints.torch_zip import check_pt2, open_zip
from merging.files.checkpoints.write import checkpoint_bytes
from merging.files.data.read import read_data
from merging.models.exported.blueprint import ExportedModel
from merging.models.exported.pt2_archive import read_pt2
from merging.schema.errors import MergingError
from tests.hostile.builders import tarred

SECONDS = 30.0
SLOW = 5.0  # seconds that no mutation may take

_INTERESTING = (
    b"\0", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"-1",
    b"PK\x01\x02", b"R", b"b", b"c", b"\x93", b"..", b"/", b"\n", b",", b"9" * 20,
)  # fmt: skip

Reader = Callable[[bytes], object]


def measure(seconds: float = SECONDS, seed: int | None = None) -> Iterator[str]:
    """Yield a line per kind of file, and one per failure.

    Raises:
        RuntimeError: If any mutation made a reader fail in another way than by refusing it, after
            all lines.
    """
    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    rng, seeds = random.Random(seed), _seeds()
    counts: dict[str, Counter[str]] = {name: Counter() for name in seeds}
    failures: list[str] = []
    end = time.monotonic() + seconds
    everything = [data for _, data in seeds.values()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while time.monotonic() < end:
            for name, (read, data) in seeds.items():
                outcome, failed = _try(read, _mutated(data, everything, rng))
                counts[name][outcome] += 1
                failures += [f"{name}: {failed}"] if failed else []
    yield f"seed {seed}, {sum(c.total() for c in counts.values()):,} files"
    for name, count in counts.items():
        yield f"{name}: " + ", ".join(f"{n:,} {outcome}" for outcome, n in count.most_common())
    yield from failures
    if failures:
        raise RuntimeError(f"{len(failures)} mutations made a reader fail (seed {seed})")


def _try(read: Reader, data: bytes) -> tuple[str, str]:
    start = time.process_time()
    try:
        read(data)
        outcome = "read"
    except MergingError:
        outcome = "refused"
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {str(error)[:80]}"
        at = f"{Path(where.filename).name}:{where.lineno}"
        return "failed", f"{what} ({at}); kept as {_kept(data)}"
    if time.process_time() - start > SLOW:
        return "slow", f"took {time.process_time() - start:.1f} s; kept as {_kept(data)}"
    return outcome, ""


def _kept(data: bytes) -> str:
    with tempfile.NamedTemporaryFile(prefix="fuzz-", delete=False) as file:
        file.write(data)
    return file.name


def _mutated(data: bytes, everything: list[bytes], rng: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not found:
            break
        at = rng.randrange(len(found))
        match rng.randrange(8):
            case 0 | 1:
                found[at] = rng.randrange(256)
            case 2:
                found[at] ^= 1 << rng.randrange(8)
            case 3:
                piece = rng.choice(_INTERESTING)
                found[at : at + len(piece)] = piece
            case 4:
                del found[at : at + rng.choice((1, 4, 50))]
            case 5:
                found[at:at] = found[at : at + rng.choice((1, 8, 200))]
            case 6:
                other = rng.choice(everything)
                start = rng.randrange(len(other))
                found[at : at + 30] = other[start : start + 30]
            case 7 if rng.random() < 0.2:
                del found[at:]
    return bytes(found)


def _seeds() -> Mapping[str, tuple[Reader, bytes]]:
    params = {"a.weight": torch.ones(3, 4), "a.bias": torch.zeros(3).half(), "n": torch.tensor(7)}
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 4)).astype(np.float32), np.arange(6) % 3
    safe, index = checkpoint_bytes(params), b'{"weight_map": {"a.weight": "s.safetensors"}}'
    shard = checkpoint_bytes({"a.weight": params["a.weight"]})
    images = rng.integers(0, 256, (2, 3072), np.uint8)
    idx = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2, *range(8)])
    labels = bytes([0, 0, 8, 1, 0, 0, 0, 2, 0, 1])
    batch = _batch(images)
    weights: dict[str, bytes] = {
        "safetensors": safe,
        "pytorch": _saved(params),
        "lightning": _saved({"state_dict": {"model.w": torch.ones(2)}, "epoch": 1,
                             "pytorch-lightning_version": "2.5", "hyper_parameters": {"lr": 0.1}}),
        "shards": _zipped({"m/model.safetensors.index.json": index, "m/s.safetensors": shard}),
        "folder, packed": _zipped(
            {"m/config.json": b"{}", "m/model.safetensors": safe}, packed=True
        ),
    }  # fmt: skip
    data: dict[str, bytes] = {
        "npz": _arrays(x=x, y=y),
        "npz, regression": _arrays(x=x, y=x[:, :2]),
        "tokens": _arrays(tokens=np.arange(40).reshape(4, 10)),
        "images": _zipped({f"{c}/{k}.png": _image(k) for c in "ab" for k in range(2)}),
        "images, JPEG": _zipped({
            f"{c}/{k}.jpg": _image(k, "JPEG") for c in "ab" for k in range(2)
        }),
        "cifar": batch,
        "cifar, archive": gzip.compress(tarred({"c/data_batch_1": batch})),
        "cifar, tar": tarred({"c/data_batch_1": batch}),
        "idx": _zipped({"train-images": idx, "train-labels": labels}),
        "idx, packed": _zipped({"i.gz": gzip.compress(idx), "l.gz": gzip.compress(labels)}),
        "csv": b"height,width,label\n1,2,cat\n3,4,dog\n5,6,cat\n",
    }
    return {
        **{name: (_weights, raw) for name, raw in weights.items()},
        "pt2": (_program, _exported()),
        "pt2, graph": (_graph, _description()),
        **{name: (_examples, raw) for name, raw in data.items()},
    }  # fmt: skip


def _weights(data: bytes) -> None:
    read_checkpoint_bytes(data, "fuzz")


def _examples(data: bytes) -> None:
    read_data(data, "fuzz")


def _program(data: bytes) -> None:
    check_pt2(open_zip(io.BytesIO(data), "fuzz", DEFAULT_LIMITS), "fuzz")


def _graph(data: bytes) -> None:
    """Read an archive whose description of a graph is this; whole files fail at its checksum."""
    archive = read_pt2(_exported(data), "fuzz")
    ExportedModel(archive.blueprint, archive.weights, archive.constants, "fuzz")


def _description() -> bytes:
    class Small(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                scale = x.mean(1, keepdim=True).expand(x.shape[0], 2)
            return (super().forward(x) * scale).split(1, dim=1)[0]

    batch = torch.export.Dim("batch")
    program = torch.export.export(Small(3, 2), (torch.ones(2, 3),), dynamic_shapes=({0: batch},))
    file = io.BytesIO()
    torch.export.save(program, file)
    with zipfile.ZipFile(file) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("models/model.json"))
        return archive.read(name)


def _exported(graph: bytes = b"{}") -> bytes:
    config = {
        name: {"path_name": f"weight_{k}", "is_param": True, "use_pickle": False,
               "tensor_meta": {"dtype": 7, "sizes": [{"as_int": n} for n in shape],
                               "strides": [{"as_int": 1} for _ in shape],
                               "storage_offset": {"as_int": 0}, "device": {"type": "cpu"},
                               "layout": 7, "requires_grad": False}}
        for k, (name, shape) in enumerate({"weight": (2, 3), "bias": (2,)}.items())
    }  # fmt: skip
    return _zipped({
        "m/archive_format": b"pt2",
        "m/data/weights/weight_0": bytes(24),
        "m/data/weights/weight_1": bytes(8),
        "m/data/weights/model_weights_config.json": json.dumps({"config": config}).encode(),
        "m/data/constants/model_constants_config.json": b'{"config": {}}',
        "m/models/model.json": graph,
    })


def _saved(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def _arrays(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _zipped(entries: Mapping[str, bytes], *, packed: bool = False) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if packed else 0) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return file.getvalue()


def _image(k: int, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (40 * k, 20, 200)).save(file, form)
    return file.getvalue()


def _batch(images: np.ndarray) -> bytes:
    return pickle.dumps({b"data": images, b"labels": [0, 1], b"batch_label": b"training"}, 2)


def main(words: list[str]) -> None:
    """Fuzz for so many seconds, from a seed if one follows."""
    seconds = float(words[0]) if words else SECONDS
    for line in measure(seconds, int(words[1]) if len(words) > 1 else None):
        print(line)


if __name__ == "__main__":
    main(sys.argv[1:])
