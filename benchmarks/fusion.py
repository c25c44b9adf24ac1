"""Fusing files against copying them and against `mergekit`, on the same generated files.

`mergekit` may live in another environment: MERGEKIT_PYTHON names its interpreter. Each
program runs in a process of its own, which measures itself after its imports: seconds, and how far
its memory rose. They run in turns, with two threads each, and end when all is on the disk (fsync),
as do the copies. mergekit itself leaves that to the system: its time without it is given too.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from merging.files.checkpoints.read import open_checkpoint
from merging.files.checkpoints.write import write_checkpoint

REPETITIONS = 5
MODELS = 3
WIDTH = 2048
# Layers of WIDTH x WIDTH and their type: 34 MB, or 500 MB.
SIZES = ((2, torch.float32), (4, torch.bfloat16))
LARGE_SIZES = ((30, torch.float32), (60, torch.bfloat16))
_KINDS = {
    torch.float32: "float32",
    torch.bfloat16: "bfloat16, where they round the task vectors too, and we only the result",
}
SPREAD = 0.02  # of a task vector's entries, to the base's of 1
_EQUAL = 1e-6
_ROOT = Path(__file__).resolve().parents[1]
# Ours → theirs: method, its parameters, and how their definition differs, if it does.
CASES: dict[str, tuple[str, dict[str, Any], str, dict[str, Any], str]] = {
    "mean": ("average", {}, "linear", {}, ""),
    "SLERP": ("slerp", {}, "slerp", {"t": 0.5},
              "of models far apart: below 0.032 radians they take the line"),
    "task arithmetic": ("task_arithmetic", {}, "task_arithmetic", {}, ""),
    "TIES": ("ties", {"density": 0.2}, "ties", {"density": 0.2},
             "of entries that are equal where trimming ends, we keep all and they some"),
    "DARE, nothing dropped": ("dare", {"drop": 0.0}, "dare_linear", {"density": 1.0}, ""),
    "DARE": (
        "dare", {"drop": 0.5}, "dare_linear", {"density": 0.5},
        "masks are drawn, so values differ; they rescale to the norm, not by 1 / (1 - p)",
    ),
    "DARE with TIES, nothing dropped": (
        "dare", {"drop": 0.0, "then": "TIES", "total": "added"},
        "dare_ties", {"density": 1.0}, "",
    ),
}  # fmt: skip
# With large files: the others take minutes, most of them mergekit's.
LARGE_CASES = ("mean", "SLERP", "task arithmetic")
_MEASURED = """
import json, os, re, sys, time, torch
from pathlib import Path
torch.set_num_threads(2)
{imports}
status = lambda: Path("/proc/self/status").read_text()
memory = lambda kind: int(re.search(kind + r":\\s+(\\d+)", status())[1])
before = memory("VmRSS")  # after the imports; what an allocator keeps is counted
for line in sys.stdin:
    job = json.loads(line)
    Path("/proc/self/clear_refs").write_text("5")
    start, worked = time.perf_counter(), time.process_time()
    {work}
    early = time.perf_counter() - start
    for path in Path(job["out"]).glob("*.safetensors"):
        with path.open("rb") as file:
            os.fsync(file.fileno())  # at once where this was done
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    risen = (memory("VmHWM") - before) * 1024
    print("measured", json.dumps([seconds, worked, risen, early]), flush=True)
"""
_OURS = _MEASURED.format(
    imports="from merging.fusion.fuse_files import fuse_files",
    work="fuse_files(job['rule'], job['models'], job['out'] + '/model.safetensors', "
    "base=job['base'], options=job['options'])",
)
_THEIRS = _MEASURED.format(
    imports="from mergekit.scripts.merge_raw_pytorch import RawPyTorchMergeConfig, plan_flat_merge"
    "\nfrom mergekit.graph import Executor\nfrom mergekit.options import MergeOptions"
    "\nfrom mergekit.scripts.merge_raw_pytorch import SimpleLoaderCache",
    work="SimpleLoaderCache._instance = None\n"
    "    config = RawPyTorchMergeConfig.model_validate(job['config'])\n"
    "    tasks = plan_flat_merge(config, job['out'], False, False, MergeOptions())\n"
    "    Executor(tasks).execute()",
)


class _Process:
    """A process that merges what it is told to and measures itself."""

    def __init__(self, python: str, code: str) -> None:
        self._popen = subprocess.Popen(
            [python, "-c", code], cwd=_ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def run(self, job: dict[str, Any], out: Path) -> list[float]:
        """Merge and measure.

        Args:
            job: What to merge.
            out: A folder for the result; what is in it is removed.

        Returns:
            Seconds, the processor's seconds, bytes that memory rose by, and seconds without
            waiting for the disk, where that is not part of it.

        Raises:
            RuntimeError: If the merge failed.
        """
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._popen.stdin.write(json.dumps({**job, "out": str(out)}) + "\n")
        self._popen.stdin.flush()
        for line in self._popen.stdout:
            if line.startswith("measured "):
                found: list[float] = json.loads(line.removeprefix("measured "))
                return found
        raise RuntimeError(f"the merge of {job} failed")

    def close(self) -> None:
        """End it."""
        self._popen.kill()
        self._popen.wait()


def measure(large: bool = False) -> Iterator[str]:
    """Yield one line per rule and size.

    Args:
        large: Whether with files of 500 MB: minutes, and 4 GB on disk (TMPDIR says where).

    Yields:
        Ratios, and how far the results are apart.
    """
    theirs = os.environ.get("MERGEKIT_PYTHON", sys.executable)
    there = subprocess.run(
        [theirs, "-c", "import mergekit.merge"], capture_output=True, check=False
    )
    if there.returncode:
        yield "mergekit is not installed here (MERGEKIT_PYTHON): ours alone"
        theirs = ""
    running = {"ours": _Process(sys.executable, _OURS)}
    if theirs:
        running["theirs"] = _Process(theirs, _THEIRS)
    try:
        for layers, dtype in LARGE_SIZES if large else SIZES:
            with tempfile.TemporaryDirectory() as name:
                paths = _make(Path(name), layers, dtype)
                held = layers * WIDTH * WIDTH * dtype.itemsize
                yield f"{MODELS} models and a base of {held / 1e6:.0f} MB in {_KINDS[dtype]}"
                for title in LARGE_CASES if large else CASES:
                    yield _compared(title, CASES[title], paths, running)
    finally:
        for process in running.values():
            process.close()


def _make(folder: Path, layers: int, dtype: torch.dtype) -> list[Path]:
    """Write the base, the models, and one that has nothing in common with them."""
    generator = torch.Generator().manual_seed(0)
    shapes = {f"layers.{k}.weight": (WIDTH, WIDTH) for k in range(layers)}
    shapes |= {f"layers.{k}.bias": (WIDTH,) for k in range(layers)}
    base = {n: torch.randn(shape, generator=generator) for n, shape in shapes.items()}
    near = [f"model{k}.safetensors" for k in range(MODELS)]
    paths = [folder / name for name in ("base.safetensors", *near, "far.safetensors")]
    write_checkpoint(paths[0], {n: v.to(dtype) for n, v in base.items()})
    for path in paths[1:]:
        origin, spread = (0.0, 1.0) if path is paths[-1] else (1.0, SPREAD)
        steps = {n: torch.randn(v.shape, generator=generator) for n, v in base.items()}
        model = {n: (origin * v + spread * steps[n]).to(dtype) for n, v in base.items()}
        write_checkpoint(path, model)
    return paths


def _copy(paths: list[Path], folder: Path) -> float:
    start = time.perf_counter()
    for k, path in enumerate(paths):
        copy = folder / f"copy{k}"
        shutil.copyfile(path, copy)
        with copy.open("rb") as file:
            os.fsync(file.fileno())
    seconds = time.perf_counter() - start
    for k in range(len(paths)):
        (folder / f"copy{k}").unlink()
    return seconds


def _compared(
    title: str,
    case: tuple[str, dict[str, Any], str, dict[str, Any], str],
    paths: list[Path],
    running: dict[str, _Process],
) -> str:
    rule, options, method, parameters, differs = case
    base, *models, far = map(str, paths)
    models = [models[0], far] if rule == "slerp" else models
    weight = {} if rule == "slerp" else {"weight": 1.0}
    own = {"rule": rule, "models": models, "options": options}
    own |= {"base": None if rule in ("average", "slerp") else base}
    config: dict[str, Any] = {
        "merge_method": method,
        "models": [{"model": m, "parameters": weight} for m in models],
        "parameters": {k: v for k, v in parameters.items() if k != "density"},
    }
    for model in config["models"]:
        model["parameters"] = {
            **weight,
            **({"density": d} if (d := parameters.get("density")) else {}),
        }
    if rule != "average":
        config["base_model"] = models[0] if rule == "slerp" else base
    folder = paths[0].parent
    jobs = {"ours": own, "theirs": {"config": config}}
    runs: dict[str, list[list[float]]] = {who: [] for who in running}
    copies = []
    for who, process in running.items():  # a warm-up: buffers and threads
        process.run(jobs[who], folder / who)
    for _ in range(REPETITIONS):
        copies.append(_copy([Path(model) for model in models], folder))
        for who, process in running.items():
            runs[who].append(process.run(jobs[who], folder / who))
    seconds, _, peak, _ = (statistics.median(column) for column in zip(*runs["ours"], strict=True))
    copied = statistics.median(
        run[0] / copy for run, copy in zip(runs["ours"], copies, strict=True)
    )
    line = f"{title}: {seconds:.2f} s, {copied:.2f} x copying, memory {peak / 1e6:.0f} MB"
    if "theirs" not in runs:
        return line
    wall, work, early = (
        statistics.median(
            other[theirs] / mine[ours]
            for mine, other in zip(runs["ours"], runs["theirs"], strict=True)
        )
        for ours, theirs in ((0, 0), (1, 1), (0, 3))
    )
    their_peak = statistics.median(run[2] for run in runs["theirs"])
    line += f"; mergekit takes {wall:.2f} x the time ({early:.2f} x if it need not be on the disk)"
    line += f", {work:.2f} x the processor's time and {their_peak / 1e6:.0f} MB"
    line += f", {_difference(folder)}"
    return f"{line} ({differs})" if differs else line


def _difference(folder: Path) -> str:
    (other,) = sorted((folder / "theirs").glob("*.safetensors"))
    largest, differing = 0.0, 0
    with (
        open_checkpoint(folder / "ours/model.safetensors") as a,
        open_checkpoint(other) as b,
    ):
        for name in a:
            off = (a[name].double() - b[name].double()).abs()
            largest = max(largest, float(off.max()))
            differing += int((off > _EQUAL).sum())
    return f"largest difference {largest:.1e}, {differing:,} entries differ by more than {_EQUAL:g}"
