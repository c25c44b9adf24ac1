"""Models and examples from files, as the library reads them.

A file says little of what is computed with its weights, so the architecture is looked for in the
file, beside it, and among the bundled families. What is written goes back as it came: dtypes and
the prefix of the names are put back when a model is written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from merging.files.checkpoints.lazy_params import Params
from merging.files.checkpoints.read import check_finite, read_checkpoint
from merging.files.user_function import is_function
from merging.models.architectures.registry import infer_config
from merging.models.build import build_network
from merging.models.config_text import read_config
from merging.models.dtypes import in_form, widened
from merging.models.exported.blueprint import ExportedModel
from merging.models.exported.pt2_archive import Archive, looks_like_pt2, read_pt2
from merging.models.libraries import library_config, transformers_config
from merging.models.names import fit_names
from merging.models.network import Network, check_tied, check_weights, is_bundled, with_tied
from merging.models.state_dict import in_order
from merging.models.user_network import named_network
from merging.schema.errors import ArchitectureMismatchError


@dataclass(frozen=True, eq=False)
class FileModel:
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
        """Return another state dict of this architecture in the dtypes and names of this file.

        Args:
            params: The state dict.
            prefix: What to put before all names; what was cut off unless given.

        Returns:
            The state dict to write.
        """
        return in_form(params, self.dtypes, self.prefix if prefix is None else prefix)


def read_model(
    path: str | os.PathLike[str], *, architecture: str = "", like: FileModel | None = None
) -> FileModel:
    """Read a model from a checkpoint, a folder or a `.pt2` archive, as the app does.

    Args:
        path: The file or folder.
        architecture: `package.module:function` that returns a model and its example inputs, or
            `torchvision:name`, or `timm:name`; found from the file unless given.
        like: A model of the same architecture, for weights that do not say theirs.

    Returns:
        The model.

    Raises:
        MergingError: If the file is not a checkpoint, or its architecture cannot be found.

    Example:
        >>> from merging.schema.cards.zoo import ASSETS
        >>> found = read_model(ASSETS / "zoo/digits-mlp-256/a.safetensors")
        >>> type(found.model).__name__, len(found.params)
        ('MLP', 8)
    """
    path = Path(path)
    if looks_like_pt2(path):
        archive = read_pt2(path.read_bytes(), path.name)
        check_finite(archive.weights, path.name)
        network = like.network if like is not None else archive_network(archive, path.name)
        return _file_model(archive.weights, network, "", path.name)
    params, meta = read_checkpoint(path)
    network = like.network if like is not None else _network(params, meta, path.name, architecture)
    return _file_model(params, network, meta.get("stripped_prefix", ""), path.name)


def config_of(
    params: Mapping[str, Tensor], meta: Mapping[str, str], name: str, architecture: str
) -> dict[str, Any]:
    """Return the config of weights: what is given, what they look like, or what lies beside them.

    Args:
        params: The state dict; only names and shapes are looked at.
        meta: The notes of its file.
        name: What to call the file in messages.
        architecture: Canonical JSON of a config, or a name such as `torchvision:resnet18`.

    Returns:
        The config.

    Raises:
        ArchitectureMismatchError: If it cannot be found.
        MergingError: If what is given is not a config.
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
    """Return the network that a `.pt2` archive describes."""
    model = ExportedModel(archive.blueprint, archive.weights, archive.constants, name)
    return Network(model.eval(), model.example_inputs, "an exported model")


def _network(params: Params, meta: Mapping[str, str], name: str, architecture: str) -> Network:
    if is_function(architecture):
        return named_network(architecture)
    return build_network(config_of(params, meta, name, architecture))


def _file_model(params: Params, network: Network, prefix: str, name: str) -> FileModel:
    fitted = fit_names(params, network)
    params = {key: params[home] for key, home in fitted.homes.items()}
    params |= {key: torch.zeros((), dtype=torch.int64) for key in fitted.counters}
    prefix += fitted.prefix
    whole = with_tied(params, network)
    check_weights(whole, network, name)
    check_tied(params, network, name)
    ordered = in_order(whole, network.model.state_dict())
    dtypes = {key: value.dtype for key, value in whole.items()}
    return FileModel(network=network, params=widened(ordered), dtypes=dtypes, prefix=prefix)
