"""Memory while checkpoints on disk are fused, by every rule that needs nothing but files.

The bound: (models + 2) times the largest tensor plus 500 MB, the interpreter and its libraries
included. Every rule runs in a process of its own, which is watched:
its resident memory, whose peak the kernel notes, and what of it is anonymous, which is sampled.
`python benchmarks/run.py fusion_memory --large` takes twenty GPT-2 sized checkpoints of 500 MB
(14 GB on disk: TMPDIR says where).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from merging.files.checkpoints.write import write_checkpoint
from merging.schema.cards.fusion.card import RuleCard
from merging.schema.cards.fusion.table import RULE_CARDS

FREE = 500_000_000  # what is allowed beside the tensors
_SAMPLE_SECONDS = 0.002
_ROOT = Path(__file__).resolve().parents[1]
_PICKLED = ("average", "slerp", "ties", "model_stock", "krum")  # rules tried on PyTorch's files
_PROGRAM = """
import json, re, sys, time, torch
from pathlib import Path
from merging.fusion.fuse_files import fuse_files
job = json.loads(sys.argv[1])
found = re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())
start = time.perf_counter()
fuse_files(**job)
sys.stdout.write(json.dumps([time.perf_counter() - start, int(found[1]) * 1024]))
"""


@dataclass(frozen=True)
class Size:
    """What is fused: models as GPT-2 has them.

    Attributes:
        models: How many.
        curved: How many where each comes with its curvature.
        words: Rows of the embedding, which is the largest tensor.
        width: Its columns.
        layers: How many.
    """

    models: int
    curved: int
    words: int
    width: int
    layers: int

    @property
    def largest(self) -> int:
        """Bytes of the largest tensor."""
        return self.words * self.width * 4

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the tensors of a model."""
        n = self.width
        shapes: dict[str, tuple[int, ...]] = {
            "wte.weight": (self.words, n),
            "wpe.weight": (1024, n),
        }
        for k in range(self.layers):
            parts = {"attn.c_attn": 3 * n, "attn.c_proj": n, "mlp.c_fc": 4 * n, "mlp.c_proj": 4 * n}
            for part, out in parts.items():
                shapes[f"h.{k}.{part}.weight"] = (n, out)
                shapes[f"h.{k}.{part}.bias"] = (out,)
        return shapes


SMALL = Size(models=8, curved=4, words=20_000, width=256, layers=4)
LARGE = Size(models=20, curved=6, words=50_257, width=768, layers=12)


def measure(large: bool = False) -> Iterator[str]:
    """Yield one line per rule and kind of file.

    Args:
        large: Whether with the models that the bound was set for: minutes, and 14 GB on disk.

    Yields:
        Peaks of memory, and the bound.
    """
    size = LARGE if large else SMALL
    for kind, save in {"safetensors": write_checkpoint, "pt": _pickle}.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            bytes_each = _make(folder, size, kind, save)
            yield (
                f"{size.models} models of {bytes_each / 1e6:.0f} MB as .{kind}, largest tensor "
                f"{size.largest / 1e6:.0f} MB"
            )
            for card in RULE_CARDS.values():
                if (
                    card.needs_data
                    or card.needs_grams
                    or (kind == "pt" and card.name not in _PICKLED)
                ):
                    continue
                yield _line(card, folder, size, kind)


def _pickle(path: Path, params: dict[str, Tensor]) -> None:
    torch.save(params, path)


def _make(
    folder: Path, size: Size, kind: str, save: Callable[[Path, dict[str, Tensor]], None]
) -> int:
    """Write the models; safetensors with a base and curvatures too.

    Returns:
        Bytes of one file.
    """
    generator = torch.Generator().manual_seed(0)
    names = ["base", *(f"model{k}" for k in range(size.models))]
    curvatures = [f"fisher{k}" for k in range(size.curved)] + ["base_fisher"]
    for name in names + (curvatures if kind == "safetensors" else []):
        params = {n: torch.randn(s, generator=generator) for n, s in size.shapes().items()}
        if "fisher" in name:
            params = {n: value.square_() for n, value in params.items()}
        save(folder / f"{name}.{kind}", params)
    return (folder / f"base.{kind}").stat().st_size


def _line(card: RuleCard, folder: Path, size: Size, kind: str) -> str:
    count = size.curved if card.needs_fishers else size.models
    count = min(count, card.most_models or count)

    def path(name: str) -> str:
        return str(folder / f"{name}.{kind}")

    out = folder / "out.safetensors"
    job = {
        "rule": card.name,
        "paths": [path(f"model{k}") for k in range(count)],
        "out": str(out),
        "base": path("base") if card.needs_base else None,
        "fishers": [path(f"fisher{k}") for k in range(count)] if card.needs_fishers else None,
        "base_fisher": path("base_fisher") if card.needs_base_fisher else None,
        "sizes": [100.0] * count if card.needs_sizes else None,
    }
    peak = _watched(job)
    out.unlink()
    bound = (count + 2) * size.largest + FREE
    return (
        f"{card.title}, {count} models: resident at most {peak.resident / 1e6:.0f} MB, "
        f"{(peak.resident - peak.before) / 1e6:.0f} MB of it since the start; anonymous "
        f"{peak.anonymous / 1e6:.0f} MB; bound {bound / 1e6:.0f} MB, "
        f"{'kept' if peak.resident <= bound else 'BROKEN'} ({peak.seconds:.1f} s)"
    )


@dataclass(frozen=True)
class Peak:
    """What fusing took.

    Attributes:
        resident: The most resident memory, in bytes.
        anonymous: The most of it that is no file's, in bytes.
        before: Resident memory once everything was imported, in bytes.
        seconds: For how long it went on.
    """

    resident: int
    anonymous: int
    before: int
    seconds: float


def _watched(job: dict[str, object]) -> Peak:
    """Fuse in a process of its own, and watch it.

    Raises:
        RuntimeError: If it failed.
    """
    words = [sys.executable, "-c", _PROGRAM, json.dumps(job)]
    process = subprocess.Popen(
        words, cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    peaks = {"VmHWM": 0, "RssAnon": 0}
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        text = status.read_text()
        for kind, peak in peaks.items():
            found = re.search(rf"{kind}:\s+(\d+)", text)  # a process that has ended has none
            peaks[kind] = max(peak, int(found[1]) * 1024 if found else 0)
        time.sleep(_SAMPLE_SECONDS)
    output, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{job['rule']} failed: {errors[-500:]}")
    seconds, before = json.loads(output)
    return Peak(peaks["VmHWM"], peaks["RssAnon"], before, seconds)
