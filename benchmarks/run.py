"""Compare with other implementations, in one run, so that the machine's speed cancels out.

`make bench`, or `python benchmarks/run.py surfaces` for one of the parts. Figures of one run are
medians of alternating repetitions; quote the ratios, not the seconds. With `--large`, `fusion` and
`fusion_memory` take files of 500 MB, as the figures in docs/merging.md have it.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

THREADS = 2
PARTS = (
    "surfaces", "matching", "symmetry", "many", "curvature", "fusion", "fusion_memory", "memory",
    "pages", "fuzz", "fuzz_operators",
)  # fmt: skip
SIZED = ("fusion", "fusion_memory")


def main(words: list[str]) -> None:
    """Run the parts that are named, or all of them."""
    torch.set_num_threads(THREADS)
    print(f"torch {torch.__version__}, {THREADS} threads")
    for part in [word for word in words if word in PARTS] or PARTS:
        print(f"\n{part}")
        how = {"large": True} if "--large" in words and part in SIZED else {}
        for line in importlib.import_module(f"benchmarks.{part}").measure(**how):
            print(f"  {line}")


if __name__ == "__main__":
    main(sys.argv[1:])
