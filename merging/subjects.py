"""The models and data that requests are about, loaded in a worker by fingerprint.

Bundled ones are read from `assets`. Brought ones were read once, checked, and kept in the store
as safetensors and `.npz`; after that only those files are read.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from merging.cards import ASSETS, read_cards
from merging.checkpoints import (
    check_finite,
    checkpoint_bytes,
    fingerprint,
    read_checkpoint,
    read_checkpoint_bytes,
)
from merging.data.base import Batches, Dataset
from merging.data.brought import check_fits
from merging.data.bundled import DATASETS, load_dataset
from merging.data.reading import read_data
from merging.errors import ArchitectureMismatchError, DataError, MergingError
from merging.graph import trace
from merging.models.networks import (
    Network,
    blueprint_bytes,
    build_network,
    check_weights,
    is_bundled,
    library_config,
    transformers_config,
    with_tied,
)
from merging.models.registry import infer_config
from merging.params import Params, check_same_architecture, in_order
from merging.pt2_archive import Archive, looks_like_pt2, read_pt2
from merging.requests import CORRECTION_EXAMPLES, SHOWN_EXAMPLES, Statistics, Subject, canonical
from merging.spec import PermutationSpec
from merging.store import Store
from merging.symmetry import find_symmetry

TensorDict = dict[str, Tensor]
NO_DATA = (
    "these models came without examples, so nothing can be evaluated: there are no examples; "
    "choose or bring some on the Models page (on the command line: --data)"
)


@dataclass(frozen=True)
class Loaded:
    """What a request is about, in memory; shared between requests, so never written to."""

    model: nn.Module
    spec: PermutationSpec
    params_a: TensorDict
    params_b: TensorDict
    data: Dataset
    example_inputs: tuple[Tensor, ...]

    def statistics_examples(self, kind: Statistics) -> Batches:
        """Training examples that the statistics of hidden units are taken on."""
        corrects = kind in ("repair", "rescale")
        return self.data.train.take(CORRECTION_EXAMPLES if corrects else SHOWN_EXAMPLES)

    def split(self, name: str) -> Batches:
        """The examples of a split that screens show.

        Raises:
            DataError: If the models came without any.
        """
        if not len(self.data.test):
            raise DataError(NO_DATA)
        return self.data.train.take(SHOWN_EXAMPLES) if name == "train" else self.data.test


def load(subject: Subject, store: Store) -> Loaded:
    """Load both models and the data.

    Raises:
        MergingError: If something that was brought is no longer in the store.
    """
    return _load(subject, _Stored(store))


def load_params(wanted: str, store: Store) -> TensorDict:
    """State dict with this fingerprint, bundled or brought.

    Raises:
        MergingError: If there is none.
    """
    return _params(_path_of(wanted, store))


class _Stored:
    """A store that equals itself in caches, whatever process state it holds."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def __hash__(self) -> int:
        return hash(self.store.folder)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Stored) and self.store.folder == other.store.folder


@lru_cache(maxsize=3)
def _load(subject: Subject, stored: _Stored) -> Loaded:
    network, spec = _certified(subject.config, stored)
    params_a, params_b = (
        in_order(load_params(wanted, stored.store), network.model.state_dict())
        for wanted in (subject.model_a, subject.model_b)
    )
    check_same_architecture(params_a, params_b)
    data = _data(subject, network, stored.store)
    _check_inputs(network, data)
    return Loaded(
        network.model, spec, _wide(params_a), _wide(params_b), data, network.example_inputs
    )


def _check_inputs(network: Network, data: Dataset) -> None:
    if not len(data.test):
        return  # what needs examples says so itself
    example = data.test.inputs[:2]
    try:
        with torch.no_grad():
            network.model(example)
    except (RuntimeError, TypeError, IndexError, ValueError) as error:
        wanted = [list(x.shape[1:]) for x in network.example_inputs]
        raise DataError(
            f"{data.title} has examples of shape {list(example.shape[1:])}, but this model reads "
            f"{' and '.join(map(str, wanted))}; choose data that fit it on the Models page"
        ) from error


def _wide(params: TensorDict) -> TensorDict:
    """Half precision is computed in float32."""
    return {
        name: value.float() if value.is_floating_point() else value
        for name, value in params.items()
    }


def certified(config: str, store: Store) -> tuple[Network, PermutationSpec]:
    """The network of a config, and its certified spec.

    Raises:
        MergingError: If the config is unknown or the spec cannot be certified.
    """
    return _certified(config, _Stored(store))


@lru_cache(maxsize=8)
def _certified(config: str, stored: _Stored) -> tuple[Network, PermutationSpec]:
    network = network_of(config, stored.store)
    return network, find_symmetry(network.model, network.example_inputs)


def network_of(config: str, store: Store) -> Network:
    """The network of a config.

    Raises:
        MergingError: If the config is unknown, or its blueprint is no longer in the store.
    """

    def blueprint(wanted: str) -> Path:
        path = store.file(wanted)
        if path is None:
            raise MergingError(
                f"the exported graph {wanted[:8]} is no longer in the result store, where room was "
                "made; upload the .pt2 archive again"
            )
        return path

    return build_network(json.loads(config), blueprints=blueprint)


@lru_cache(maxsize=6)
def _params(path: Path) -> TensorDict:
    return read_checkpoint(path)[0]


def _path_of(wanted: str, store: Store) -> Path:
    for name, card in read_cards().items():
        for letter in "ab":
            if card[f"fingerprint_{letter}"] == wanted:
                return ASSETS / "zoo" / name / f"{letter}.safetensors"
    path = store.file(wanted)
    if path is None:
        raise MergingError(
            f"model {wanted[:8]} is no longer in the result store, where room was made; "
            "upload it again on the Models page"
        )
    return path


def _data(subject: Subject, network: Network, store: Store) -> Dataset:
    if subject.data in DATASETS:
        return load_dataset(subject.data)
    if not subject.data:
        none = Batches(torch.empty(0, *network.example_inputs[0].shape[1:]), torch.empty(0).long())
        return Dataset("", "No data", none, none, classes_of(network))
    path = store.file(subject.data)
    if path is None:
        raise MergingError(
            f"the data {subject.data[:8]} are no longer in the result store, where room was made; "
            "upload them again on the Models page"
        )
    with np.load(path, allow_pickle=False) as file:
        x, y = torch.from_numpy(file["x"]), torch.from_numpy(file["y"])
        half = int(file["split"]) if "split" in file else len(y) // 2  # as stores kept it once
    train, test = (
        Batches(x[:half], y[:half], name="train"),
        Batches(x[half:], y[half:], name="test"),
    )
    return Dataset(subject.data, "Brought data", train, test, classes_of(network))


def classes_of(network: Network) -> int:
    """Number of classes that a network tells apart."""
    graph = trace(network.model, network.example_inputs)
    with torch.no_grad():
        outputs = graph.run(network.model.state_dict(), network.example_inputs)
    return max(2, int(outputs.shape[-1]))


def uploaded(upload: str, name: str, store: Store) -> bytes:
    """The bytes of an upload.

    Raises:
        MergingError: If room was made for others since.
    """
    path = store.file(upload)
    if path is None:
        raise MergingError(f"the upload of {name} is no longer there; upload it again")
    return path.read_bytes()


def keep_checkpoint(
    source: bytes | Path, name: str, store: Store, *, architecture: str = ""
) -> dict[str, Any]:
    """Read a brought checkpoint, find its architecture, and keep it as safetensors.

    The architecture is that of a `.pt2` archive itself; else the one that is given; else what a
    `config.json` beside the weights names; else the bundled one of these names and shapes.

    Args:
        source: The bytes of an upload, or a file or folder on this machine.
        name: The name that it came with; only for messages.
        store: The store.
        architecture: Canonical JSON of a config, or a name such as `torchvision:resnet18`.

    Returns:
        The fields of `requests.BroughtCheckpoint`.

    Raises:
        MergingError: If the file is no checkpoint, or its architecture cannot be found.
    """
    if looks_like_pt2(source):
        archive = read_pt2(source if isinstance(source, bytes) else source.read_bytes(), name)
        check_finite(archive.weights, name)
        params, meta = archive.weights, {"format": "pt2"}
        config = _keep_blueprint(archive, store)
    else:
        params, meta = _read(source, name)
        config = _config(params, meta, name, architecture)
    if not is_bundled(config):
        network = network_of(canonical(config), store)
        params = with_tied(params, network)
        check_weights(params, network, name)
    mark = fingerprint(params)
    store.put_file(mark, checkpoint_bytes(params, _notes_kept(meta)), ".safetensors")
    return {
        "name": name,
        "fingerprint": mark,
        "config": canonical(config),
        "tensors": len(params),
        "parameters": sum(value.numel() for value in params.values()),
        "notes": _notes(meta),
    }


def _read(source: bytes | Path, name: str) -> tuple[Params, dict[str, str]]:
    if isinstance(source, bytes):
        return read_checkpoint_bytes(source, name)
    return read_checkpoint(source)


def _config(params: Params, meta: dict[str, str], name: str, architecture: str) -> dict[str, Any]:
    if architecture.startswith("{"):
        config: dict[str, Any] = json.loads(architecture)
        return infer_config(params, name) if is_bundled(config) else config
    if architecture:
        return library_config(architecture, params)
    try:
        return infer_config(params, name)
    except ArchitectureMismatchError:
        if "config" in meta:
            return transformers_config(meta["config"], name)
        raise


def _keep_blueprint(archive: Archive, store: Store) -> dict[str, str]:
    shapes = {key: [list(v.shape), str(v.dtype)] for key, v in archive.weights.items()}
    parts = [archive.blueprint, canonical(shapes), fingerprint(archive.constants)]
    mark = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    data = blueprint_bytes(archive.blueprint, archive.constants, archive.weights)
    store.put_file(mark, data, ".safetensors")
    return {"architecture": "exported", "blueprint": mark}


def _notes_kept(meta: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in meta.items() if key != "config"}


def _notes(meta: dict[str, str]) -> list[str]:
    words = {
        "stripped_prefix": "The prefix {!r} was cut off all names.",
        "found_under": "The weights were found under {!r}.",
        "ignored": "Left out beside the weights: {}.",
        "shards": "Read from {} files.",
    }
    notes = [text.format(meta[key]) for key, text in words.items() if key in meta]
    if meta.get("format") == "pt2":
        notes.append("The architecture is the graph in this archive.")
    return notes


def keep_data(source: bytes | Path, name: str, config: str, store: Store) -> dict[str, Any]:
    """Read uploaded examples, check that they fit an architecture, and keep them.

    Args:
        source: The bytes of an upload, or a file on this machine.
        name: The name that it came with; only for messages.
        config: Canonical JSON of the architecture.
        store: The store.

    Returns:
        The fields of `requests.BroughtData`.

    Raises:
        MergingError: If the file holds no examples for this architecture.
    """
    network = network_of(config, store)
    found = read_data(source, name)
    x, y, half = found.x, found.y, found.split
    if found.kind == "classification":
        shape = tuple(network.example_inputs[0].shape[1:])
        x = check_fits(x, y, shape, classes_of(network))
    notes = list(found.notes)
    if half is None:  # the parts must not differ in what they hold
        order = np.random.default_rng(0).permutation(len(y))
        x, y, half = np.ascontiguousarray(x[order]), y[order], len(y) // 2
        notes.append(
            f"The first {half} examples (in a fixed random order) are for matching and statistics, "
            f"the other {len(y) - half} for the test curves."
        )
    content = repr((x.shape, y.shape, half)).encode() + x.tobytes() + y.tobytes()
    mark = hashlib.sha256(content).hexdigest()
    path = store.folder / f"{mark}.tmp.npz"
    try:
        np.savez(path, x=x, y=y, split=half)
        store.put_file(mark, path, ".npz")
    finally:
        path.unlink(missing_ok=True)
    return {
        "name": name,
        "fingerprint": mark,
        "examples": len(y),
        "classes": found.classes,
        "kind": found.kind,
        "notes": notes,
    }
