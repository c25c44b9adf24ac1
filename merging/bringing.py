"""Models and examples that a person brings as files, as the library reads them.

A file says little of what is computed with its weights, so the architecture is looked for in the
file, beside it, and among the bundled families. What was brought goes back as it came: dtypes and
the prefix of the names are put back when a model is written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from merging.checkpoints import check_finite, read_checkpoint
from merging.data.arrays import BroughtArrays
from merging.data.base import Batches, Dataset
from merging.data.brought import check_fits
from merging.data.reading import read_data
from merging.errors import ArchitectureMismatchError
from merging.graph import trace
from merging.models.blueprint import ExportedModel
from merging.models.config_text import read_config
from merging.models.networks import (
    Network,
    build_network,
    check_weights,
    is_bundled,
    library_config,
    named_network,
    transformers_config,
    with_tied,
)
from merging.models.registry import infer_config
from merging.own_code import is_function
from merging.params import Params, in_order
from merging.pt2_archive import Archive, looks_like_pt2, read_pt2

HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class BroughtModel:
    """A model from a file.

    Attributes:
        network: Its architecture.
        params: Its state dict, half precision widened to float32, in the order of the model.
        dtypes: What the file has each tensor in.
        prefix: What was cut off all names of the file.
    """

    network: Network
    params: Params
    dtypes: Mapping[str, torch.dtype]
    prefix: str = ""

    @property
    def model(self) -> nn.Module:
        """The module; its own weights mean nothing."""
        return self.network.model

    @property
    def example_inputs(self) -> tuple[Tensor, ...]:
        """Inputs of the right shapes."""
        return self.network.example_inputs

    def as_brought(self, params: Mapping[str, Tensor], *, prefix: str | None = None) -> Params:
        """Another state dict of this architecture in the dtypes and names of this file.

        Args:
            params: The state dict.
            prefix: What to put before all names; what was cut off unless given.

        Returns:
            The state dict to write.
        """
        return in_form(params, self.dtypes, self.prefix if prefix is None else prefix)


def read_model(
    path: str | os.PathLike[str], *, architecture: str = "", like: BroughtModel | None = None
) -> BroughtModel:
    """Read a model from a checkpoint, a folder or a `.pt2` archive, as the app does.

    Args:
        path: The file or folder.
        architecture: `package.module:function` that returns a model and its example inputs, or
            `torchvision:name`, or `timm:name`; found from the file unless given.
        like: A model of the same architecture, for weights that do not say theirs.

    Returns:
        The model.

    Raises:
        MergingError: If the file is no checkpoint, or its architecture cannot be found.

    Example:
        >>> from merging.cards import ASSETS
        >>> found = read_model(ASSETS / "zoo/digits-mlp-256/a.safetensors")
        >>> type(found.model).__name__, len(found.params)
        ('MLP', 8)
    """
    path = Path(path)
    if looks_like_pt2(path):
        archive = read_pt2(path.read_bytes(), path.name)
        check_finite(archive.weights, path.name)
        network = like.network if like is not None else archive_network(archive, path.name)
        return _brought(archive.weights, network, "", path.name)
    params, meta = read_checkpoint(path)
    network = like.network if like is not None else _network(params, meta, path.name, architecture)
    return _brought(params, network, meta.get("stripped_prefix", ""), path.name)


def read_examples(path: str | os.PathLike[str], model: BroughtModel) -> Dataset:
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
    x, y, half, _ = parted(read_data(path, path.name), model.network)
    return dataset(x, y, half, path.name, model.network)


def in_form(params: Mapping[str, Tensor], dtypes: Mapping[str, torch.dtype], prefix: str) -> Params:
    """A state dict in given dtypes and with a prefix.

    A tensor with a value that its dtype cannot hold stays as it is.
    """
    found: Params = {}
    for name, value in params.items():
        narrow = value.to(dtypes.get(name, value.dtype))
        kept = not value.is_floating_point() or bool(narrow.isfinite().all())
        found[prefix + name] = narrow if kept else value
    return found


def form_notes(dtypes: Mapping[str, torch.dtype], prefix: str) -> list[str]:
    """What a person should know of the form that a model is written in."""
    notes = []
    narrow = sorted({str(d).removeprefix("torch.") for d in dtypes.values() if d in HALF})
    if narrow:
        notes.append(f"Written in {' and '.join(narrow)}, as the file that it comes from.")
    if prefix:
        notes.append(f"The prefix {prefix!r} was put back before all names.")
    return notes


def config_of(
    params: Mapping[str, Tensor], meta: Mapping[str, str], name: str, architecture: str
) -> dict[str, Any]:
    """The config of weights: what is given, what they look like, or what lies beside them.

    Args:
        params: The state dict; only names and shapes are looked at.
        meta: The notes of its file.
        name: What to call the file in messages.
        architecture: Canonical JSON of a config, or a name such as `torchvision:resnet18`.

    Returns:
        The config.

    Raises:
        ArchitectureMismatchError: If it cannot be found.
        MergingError: If what is given is no config.
    """
    if architecture.startswith("{"):
        config = read_config(architecture)
        return infer_config(params, name) if is_bundled(config) else config
    if architecture:
        return library_config(architecture, params)
    try:
        return infer_config(params, name)
    except ArchitectureMismatchError:
        if "config" in meta:
            return transformers_config(meta["config"], name)
        raise


def archive_network(archive: Archive, name: str) -> Network:
    """The network that a `.pt2` archive describes."""
    model = ExportedModel(archive.blueprint, archive.weights, archive.constants, name)
    return Network(model.eval(), model.example_inputs, "an exported model")


def parted(
    found: BroughtArrays, network: Network
) -> tuple[np.ndarray, np.ndarray, int, tuple[str, ...]]:
    """Examples in the shape that a network reads, and where the test part begins.

    Args:
        found: What a file holds.
        network: The network.

    Returns:
        Inputs, targets, the number of training examples, and notes for a person.

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
        return x, y, half, found.notes
    order = np.random.default_rng(0).permutation(len(y))  # the parts must not differ in kind
    half = len(y) // 2
    note = (
        f"The first {half} examples (in a fixed random order) are for matching and statistics, "
        f"the other {len(y) - half} for the test curves."
    )
    return np.ascontiguousarray(x[order]), y[order], half, (*found.notes, note)


def _reads(network: Network, shape: tuple[int, ...]) -> bool:
    """Whether a network also reads images of another size than its example inputs have.

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
    """Arrays as a data set whose first `half` examples are for training."""
    inputs, targets = torch.from_numpy(x), torch.from_numpy(y)
    train, test = (
        Batches(inputs[:half], targets[:half], name="train"),
        Batches(inputs[half:], targets[half:], name="test"),
    )
    return Dataset(name, "Brought data", train, test, classes_of(network))


def classes_of(network: Network) -> int:
    """Number of classes that a network tells apart."""
    graph = trace(network.model, network.example_inputs)
    with torch.no_grad():
        outputs = graph.run(network.model.state_dict(), network.example_inputs)
    return max(2, int(outputs.shape[-1]))


def widened(params: Mapping[str, Tensor]) -> Params:
    """The same in float32 where it is in half precision, in which nothing is computed."""
    return {
        name: value.float() if value.is_floating_point() else value
        for name, value in params.items()
    }


def _network(params: Params, meta: Mapping[str, str], name: str, architecture: str) -> Network:
    if is_function(architecture):
        return named_network(architecture)
    return build_network(config_of(params, meta, name, architecture))


def _brought(params: Params, network: Network, prefix: str, name: str) -> BroughtModel:
    whole = with_tied(params, network)
    check_weights(whole, network, name)
    ordered = in_order(whole, network.model.state_dict())
    dtypes = {key: value.dtype for key, value in whole.items()}
    return BroughtModel(network, widened(ordered), dtypes, prefix)
