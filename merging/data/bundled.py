"""The data sets that come with the app, read from `assets/data`.

Real images are kept as bytes. Both splits are shuffled once, when the files are written, so that
the first `n` examples are a fair sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType

import numpy as np
import torch

from merging.cards import ASSETS
from merging.data.base import Batches, Dataset
from merging.errors import UnknownNameError


def _from_file(name: str, title: str, mean: float, deviation: float, classes: int = 10) -> Dataset:
    """Read a file and standardise its inputs: `(x - mean) / deviation`, in the file's units."""
    with np.load(ASSETS / "data" / f"{name}.npz", allow_pickle=False) as file:
        splits = [
            Batches(
                torch.from_numpy((file[f"x_{split}"].astype(np.float32) - mean) / deviation),
                torch.from_numpy(file[f"y_{split}"].astype(np.int64)),
                name=split,
            )
            for split in ("train", "test")
        ]
    return Dataset(name, title, splits[0], splits[1], classes)


def _quadrant() -> Dataset:
    """Points of a square, labelled by whether they lie in its upper left quarter.

    Data of the counterexample of Ainsworth et al. (2023, §4 and A.6).
    """
    x = 2 * torch.rand(12000, 2, generator=torch.Generator().manual_seed(0)) - 1
    y = ((x[:, 0] < 0) & (x[:, 1] > 0)).long()
    train, test = (
        Batches(x[:4000], y[:4000], name="train"),
        Batches(x[4000:], y[4000:], name="test"),
    )
    return Dataset("quadrant", "Points of a square", train, test, 2)


DATASETS: Mapping[str, Callable[[], Dataset]] = MappingProxyType({
    "mnist": lambda: _from_file("mnist", "MNIST, 5,000 digits", 33.3, 78.6),
    "digits": lambda: _from_file("digits", "Digits, 8 × 8 (scikit-learn)", 0.0, 16.0),
    "mnist1d": lambda: _from_file("mnist1d", "MNIST-1D", 0.0, 1.0),
    "quadrant": _quadrant,
})


@lru_cache(maxsize=len(DATASETS))
def load_dataset(name: str) -> Dataset:
    """Read a bundled data set.

    Args:
        name: One of `DATASETS`.

    Returns:
        The data set; its tensors are shared, so treat them as read-only.

    Raises:
        UnknownNameError: If there is no such data set.
    """
    if name not in DATASETS:
        raise UnknownNameError(f"unknown data set {name!r}; choose from {', '.join(DATASETS)}")
    return DATASETS[name]()
