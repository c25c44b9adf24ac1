"""Load models, specs and data by fingerprint, bundled or uploaded."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from merging.files.checkpoints.read import (
    map_checkpoint,
)
from merging.files.data.batches import Batches, Dataset
from merging.files.data.bundled import is_dataset, load_dataset
from merging.models.build import build_network
from merging.models.config_text import read_config
from merging.models.network import Network
from merging.models.read_examples import classes_of, dataset
from merging.results.compute.store import Store
from merging.schema.cards.zoo import ASSETS, family_files, read_cards
from merging.schema.errors import MergingError
from merging.symmetry import find_symmetry, read_spec, with_reasons
from merging.symmetry.spec import PermutationSpec

TensorDict = dict[str, Tensor]


NO_DATA = (
    "these models came without examples, so nothing can be evaluated: there are no examples; "
    "choose or upload some on the Models page (on the command line: --data)"
)


def load_params(wanted: str, store: Store) -> TensorDict:
    """Return the state dict with this fingerprint, bundled or uploaded.

    Raises:
        MergingError: If there is none.
    """
    return _params(_path_of(wanted, store))


class Stored:
    """A store that equals itself in caches, whatever process state it holds."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def __hash__(self) -> int:
        return hash(self.store.folder)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stored) and self.store.folder == other.store.folder


def certified(config: str, store: Store, spec: str = "") -> tuple[Network, PermutationSpec]:
    """Return the network of a config, and its certified spec.

    Args:
        config: Canonical JSON of the architecture.
        store: The store.
        spec: Fingerprint of a spec that was chosen; empty for the derived one.

    Returns:
        Both.

    Raises:
        MergingError: If the config is unknown, the spec cannot be certified, or is no longer in
            the store.
    """
    return _chosen(config, spec, Stored(store))


@lru_cache(maxsize=8)
def _certified(config: str, stored: Stored) -> tuple[Network, PermutationSpec]:
    network = network_of(config, stored.store)
    return network, find_symmetry(network.model, network.example_inputs)


@lru_cache(maxsize=8)
def _chosen(config: str, spec: str, stored: Stored) -> tuple[Network, PermutationSpec]:
    network, derived = _certified(config, stored)
    if not spec:
        return network, derived
    chosen = read_spec(_spec_text(spec, stored.store), network.model.state_dict())
    return network, with_reasons(chosen, derived)


def _spec_text(spec: str, store: Store) -> str:
    path = store.files.path(spec)
    if path is None:
        raise MergingError(
            f"the permutation spec {spec[:8]} is no longer in the result store, where room was "
            "made; choose it again on the Models page"
        )
    return path.read_text("utf-8")


def network_of(config: str, store: Store) -> Network:
    """Return the network of a config.

    Raises:
        MergingError: If the config is unknown, or its blueprint is no longer in the store.
    """

    def blueprint(wanted: str) -> Path:
        path = store.files.path(wanted)
        if path is None:
            raise MergingError(
                f"the exported graph {wanted[:8]} is no longer in the result store, where room was "
                "made; upload the .pt2 archive again"
            )
        return path

    return build_network(read_config(config), blueprints=blueprint)


@lru_cache(maxsize=6)
def _params(path: Path) -> TensorDict:
    return map_checkpoint(path)


def _path_of(wanted: str, store: Store) -> Path:
    for name, card in read_cards().items():
        for letter in "ab":
            if card[f"fingerprint_{letter}"] == wanted:
                return ASSETS / "zoo" / name / f"{letter}.safetensors"
    path = family_files().get(wanted) or store.files.path(wanted)
    if path is None:
        raise MergingError(
            f"model {wanted[:8]} is no longer in the result store, where room was made; "
            "upload it again on the Models page"
        )
    return path


def data_of(name: str, network: Network, store: Store) -> Dataset:
    """Return the examples of that name, bundled or uploaded; without a name, none.

    Raises:
        MergingError: If uploaded ones are no longer in the store.
    """
    if is_dataset(name):
        return load_dataset(name)
    if not name:
        none = Batches(torch.empty(0, *network.example_inputs[0].shape[1:]), torch.empty(0).long())
        return Dataset(name="", title="No data", train=none, test=none, classes=classes_of(network))
    path = store.files.path(name)
    if path is None:
        raise MergingError(
            f"the data {name[:8]} are no longer in the result store, where room was made; "
            "upload them again on the Models page"
        )
    with np.load(path, allow_pickle=False) as file:
        x, y = file["x"], file["y"]
        half = int(file["split"]) if "split" in file else len(y) // 2  # as stores kept it once
    return dataset(x, y, half, name, network)
