"""The data sets that come with the app, read from `assets/data`.

Real images are kept as bytes. Both splits are shuffled once, when the files are written, so that
the first `n` examples are a fair sample. Sets that are made of these (`mnist/rotated-20`) are made
when they are loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType

import numpy as np
import torch

from merging.files.data.batches import Batches, Dataset
from merging.files.data.derived import GREY_FACTORS, Split, derive, find_step
from merging.files.sealed import seal
from merging.schema.cards.zoo import ASSETS
from merging.schema.errors import UnknownNameError


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
    return Dataset(name=name, title=title, train=splits[0], test=splits[1], classes=classes)


def _quadrant() -> Dataset:
    """Return points of a square, labelled by whether they lie in its upper left quarter.

    Data of the counterexample of Ainsworth et al. (2023, §4 and A.6).
    """
    x = 2 * torch.rand(12000, 2, generator=torch.Generator().manual_seed(0)) - 1
    y = ((x[:, 0] < 0) & (x[:, 1] > 0)).long()
    train, test = (
        Batches(x[:4000], y[:4000], name="train"),
        Batches(x[4000:], y[4000:], name="test"),
    )
    return Dataset(name="quadrant", title="Points of a square", train=train, test=test, classes=2)


_MNIST_MEAN, _MNIST_DEVIATION = 33.3, 78.6

DATASETS: Mapping[str, Callable[[], Dataset]] = MappingProxyType({
    "mnist": lambda: _from_file("mnist", "MNIST, 5,000 digits", _MNIST_MEAN, _MNIST_DEVIATION),
    "digits": lambda: _from_file("digits", "Digits, 8 × 8 (scikit-learn)", 0.0, 16.0),
    "mnist1d": lambda: _from_file("mnist1d", "MNIST-1D", 0.0, 1.0),
    "quadrant": _quadrant,
})
_TITLES: Mapping[str, str] = MappingProxyType({"mnist": "MNIST", "digits": "Digits"})


def _derived(name: str) -> Dataset:
    """Make a set of a bundled one: read its bytes, change them, and standardise as MNIST.

    Raises:
        UnknownNameError: If no sets are made of that one, or a change is unknown.
    """
    source, *steps = name.split("/")
    if source not in GREY_FACTORS:
        raise UnknownNameError(
            f"data sets are made of {' or '.join(GREY_FACTORS)}, not of {source!r}; write "
            f"{next(iter(GREY_FACTORS))}/rotated-20, for one"
        )
    with np.load(ASSETS / "data" / f"{source}.npz", allow_pickle=False) as file:
        splits = [
            Split(
                split,
                np.rint(file[f"x_{split}"][:, 0] * GREY_FACTORS[source]).astype(np.uint8),
                file[f"y_{split}"].astype(np.int64),
            )
            for split in ("train", "test")
        ]
    made, titles = derive(splits, steps)
    train, validation, test = (
        Batches(
            torch.from_numpy(
                (m.images[:, None].astype(np.float32) - _MNIST_MEAN) / _MNIST_DEVIATION
            ),
            torch.from_numpy(m.labels),
            name=m.name,
        )
        for m in made
    )
    return Dataset(
        name=name,
        title=", ".join([_TITLES[source], *titles]),
        train=train,
        test=test,
        classes=10,
        validation=validation,
    )


def is_dataset(name: str) -> bool:
    """Return whether `load_dataset` knows this name, without loading anything.

    Example:
        >>> [is_dataset(name) for name in ("mnist", "mnist/rotated-20", "mnist/eaten", "")]
        [True, True, False, False]
    """
    source, *steps = name.split("/")
    if not steps:
        return name in DATASETS
    try:
        return source in GREY_FACTORS and all(find_step(step) for step in steps)
    except UnknownNameError:
        return False


def load_dataset(name: str) -> Dataset:
    """Read a bundled data set, or make one of it.

    Args:
        name: One of `DATASETS`; or `mnist` or `digits` followed by changes, each after a slash, as
            `mnist/rotated-20` (`data.shifted.STEPS`), which has a validation split.

    Returns:
        The data set; its tensors are shared, so treat them as read-only.

    Raises:
        UnknownNameError: If there is no such data set.

    Example:
        >>> load_dataset("mnist/labels-01/rotated-20").title
        'MNIST, digits 0, 1, rotated by 20°'
    """
    if name in DATASETS:
        return _bundled(name)
    if "/" not in name:
        raise UnknownNameError(
            f"unknown data set {name!r}; choose from {', '.join(DATASETS)}, or mnist/rotated-20 "
            "and the like"
        )
    return _made(name)


@lru_cache(maxsize=len(DATASETS))
def _bundled(name: str) -> Dataset:
    found = DATASETS[name]()
    seal(found.tensors, _bundled.cache_clear)
    return found


@lru_cache(maxsize=8)  # the tasks of one family and its base; about 15 MB each
def _made(name: str) -> Dataset:
    found = _derived(name)
    seal(found.tensors, _made.cache_clear)
    return found
