"""Read examples for a model, and part them into training and test examples."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from merging.files.data.arrays import ExampleArrays
from merging.files.data.batches import Batches, Dataset
from merging.files.data.npz import check_fits
from merging.files.data.read import read_data
from merging.models.exported.blueprint import ExportedModel
from merging.models.graph.export import trace
from merging.models.network import Network
from merging.models.read_model import FileModel


def read_examples(path: str | os.PathLike[str], model: FileModel) -> Dataset:
    """Read examples for a model, and part them as the app does.

    Args:
        path: The file or folder: `.npz`, CSV, images in folders, CIFAR, MNIST's idx files.
        model: The model that they are for.

    Returns:
        The examples; `.train` is for matching and statistics, `.test` for curves.

    Raises:
        MergingError: If the file holds no examples for this model.
    """
    path = Path(path)
    found = parted(read_data(path, path.name), model.network)
    return dataset(found.x, found.y, found.train, path.name, model.network)


@dataclass(frozen=True, eq=False)
class Parted:
    """Examples for a network, those for training first.

    Attributes:
        x: Inputs `[n, ...]`, in the shape that the network reads.
        y: Targets `[n, ...]`.
        train: How many examples are for training; the rest is for tests.
        notes: What was done to them, in sentences.
    """

    x: np.ndarray
    y: np.ndarray
    train: int
    notes: tuple[str, ...]


def parted(found: ExampleArrays, network: Network) -> Parted:
    """Part examples into those for training and those for tests, in the shape a network reads.

    Args:
        found: What a file holds.
        network: The network.

    Returns:
        The examples.

    Raises:
        DataError: If they do not fit the network.
    """
    x, y, half = found.x, found.y, found.split
    if found.kind == "classification":
        shape = tuple(network.example_inputs[0].shape[1:])
        if _reads(network, x.shape[1:]):
            shape = x.shape[1:]
        x = check_fits(x, y, shape, classes_of(network))
    if half is not None:
        return Parted(x=x, y=y, train=half, notes=found.notes)
    order = np.random.default_rng(0).permutation(len(y))  # the parts must not differ in kind
    half = len(y) // 2
    note = (
        f"The first {half} examples (in a fixed random order) are for matching and statistics, "
        f"the other {len(y) - half} for the test curves."
    )
    return Parted(
        x=np.ascontiguousarray(x[order]), y=y[order], train=half, notes=(*found.notes, note)
    )


def _reads(network: Network, shape: tuple[int, ...]) -> bool:
    """Return whether a network also reads images of another size than its example inputs have.

    A package names an architecture for one size; many read others. An exported graph does not: its
    sizes are those that it was exported with.
    """
    usual = tuple(network.example_inputs[0].shape[1:])
    is_other = len(shape) == 3 and shape[0] == usual[0] and shape != usual
    if not is_other or isinstance(network.model, ExportedModel):
        return False
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    graph = trace(network.model, network.example_inputs)
    try:
        with torch.no_grad():
            found = graph.run(network.model.state_dict(), (images,))
            return torch.allclose(found, network.model(images), rtol=1e-3, atol=1e-5)
    except Exception:  # a model may raise anything for a size that it cannot have
        return False


def dataset(x: np.ndarray, y: np.ndarray, half: int, name: str, network: Network) -> Dataset:
    """Make arrays a data set whose first `half` examples are for training."""
    inputs, targets = torch.from_numpy(x), torch.from_numpy(y)
    train, test = (
        Batches(inputs[:half], targets[:half], name="train"),
        Batches(inputs[half:], targets[half:], name="test"),
    )
    return Dataset(
        name=name, title="Your own examples", train=train, test=test, classes=classes_of(network)
    )


def classes_of(network: Network) -> int:
    """Return the number of classes that a network tells apart."""
    graph = trace(network.model, network.example_inputs)
    with torch.no_grad():
        outputs = graph.run(network.model.state_dict(), network.example_inputs)
    return max(2, int(outputs.shape[-1]))
