"""The models and data that requests are about, loaded in a worker by fingerprint.

Bundled ones are read from `assets`. Brought ones were read once, checked, and kept in the store
as safetensors and `.npz`; after that only those files are read.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from merging.bringing import classes_of, config_of, dataset, parted, widened
from merging.cards import ASSETS, family_files, read_cards
from merging.checkpoints import (
    TensorSpec,
    check_finite,
    fingerprint,
    map_checkpoint,
    open_checkpoint,
    stream_checkpoint,
)
from merging.data.arrays import BroughtArrays
from merging.data.base import Batches, Dataset
from merging.data.bundled import is_dataset, load_dataset
from merging.data.reading import read_data
from merging.errors import CheckpointError, DataError, MergingError
from merging.models.config_text import read_config
from merging.models.networks import (
    Network,
    blueprint_bytes,
    build_network,
    check_weights,
    is_bundled,
    with_tied,
)
from merging.params import LazyParams, check_same_architecture, in_order
from merging.pt2_archive import Archive, looks_like_pt2, read_pt2
from merging.requests import CORRECTION_EXAMPLES, SHOWN_EXAMPLES, Statistics, Subject, canonical
from merging.sealed import seal
from merging.second_moment import open_second_moment
from merging.spec import PermutationSpec
from merging.store import Store
from merging.symmetry import check_by_hand, find_symmetry, frozen, read_spec, with_reasons

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
    return _load(subject, Stored(store))


def load_params(wanted: str, store: Store) -> TensorDict:
    """State dict with this fingerprint, bundled or brought.

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


@lru_cache(maxsize=3)
def _load(subject: Subject, stored: Stored) -> Loaded:
    network, spec = _chosen(subject.config, subject.spec, stored)
    params_a, params_b = (
        in_order(load_params(wanted, stored.store), network.model.state_dict())
        for wanted in (subject.model_a, subject.model_b)
    )
    check_same_architecture(params_a, params_b, dtype=False)
    data = data_of(subject.data, network, stored.store)
    seal((*params_a.values(), *params_b.values(), *data.tensors), forget)
    _check_inputs(network, data)
    return Loaded(
        network.model, spec, widened(params_a), widened(params_b), data, network.example_inputs
    )


def forget() -> None:
    """Forget models and data that were loaded, so that they are read anew."""
    _load.cache_clear()
    _params.cache_clear()


def _check_inputs(network: Network, data: Dataset) -> None:
    if not len(data.test):
        return  # what needs examples says so itself
    example = data.test.inputs[:2].clone()  # whatever the model is, it gets nothing that is shared
    try:
        with torch.no_grad():
            network.model(example)
    except (MergingError, RuntimeError, TypeError, IndexError, ValueError) as error:
        wanted = [list(x.shape[1:]) for x in network.example_inputs]
        raise DataError(
            f"{data.title} has examples of shape {list(example.shape[1:])}, but this model reads "
            f"{' and '.join(map(str, wanted))}; choose data that fit it on the Models page"
        ) from error


def certified(config: str, store: Store, spec: str = "") -> tuple[Network, PermutationSpec]:
    """The network of a config, and its certified spec.

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
    path = store.file(spec)
    if path is None:
        raise MergingError(
            f"the permutation spec {spec[:8]} is no longer in the result store, where room was "
            "made; choose it again on the Models page"
        )
    return path.read_text("utf-8")


def keep_spec(
    text: str, config: str, store: Store, *, freeze: Sequence[str] = ()
) -> dict[str, Any]:
    """Prove a spec that a person chose, and keep it.

    Args:
        text: JSON as `PermutationSpec.from_json` reads it; empty for the derived spec.
        config: Canonical JSON of the architecture.
        store: The store.
        freeze: Groups to leave out of it.

    Returns:
        The fields of `requests.ChosenSpec`; no fingerprint if it is the derived spec itself.

    Raises:
        SymmetryError: If it does not fit the architecture, or changes its function; the group is
            named.
    """
    network, derived = _certified(config, Stored(store))
    spec = read_spec(text, network.model.state_dict()) if text else derived
    spec = frozen(spec, freeze)
    check_by_hand(network.model, spec, network.example_inputs)
    written = spec.to_json()
    mark = ""
    if written != derived.to_json():
        mark = hashlib.sha256(written.encode()).hexdigest()
        store.put_file(mark, written.encode(), ".json")
    return {"fingerprint": mark, "groups": len(spec.sizes), "units": spec.units}


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

    return build_network(read_config(config), blueprints=blueprint)


@lru_cache(maxsize=6)
def _params(path: Path) -> TensorDict:
    return map_checkpoint(path)


def _path_of(wanted: str, store: Store) -> Path:
    for name, card in read_cards().items():
        for letter in "ab":
            if card[f"fingerprint_{letter}"] == wanted:
                return ASSETS / "zoo" / name / f"{letter}.safetensors"
    path = family_files().get(wanted) or store.file(wanted)
    if path is None:
        raise MergingError(
            f"model {wanted[:8]} is no longer in the result store, where room was made; "
            "upload it again on the Models page"
        )
    return path


def data_of(name: str, network: Network, store: Store) -> Dataset:
    """The examples of that name, bundled or brought; without a name, none.

    Raises:
        MergingError: If brought ones are no longer in the store.
    """
    if is_dataset(name):
        return load_dataset(name)
    if not name:
        none = Batches(torch.empty(0, *network.example_inputs[0].shape[1:]), torch.empty(0).long())
        return Dataset("", "No data", none, none, classes_of(network))
    path = store.file(name)
    if path is None:
        raise MergingError(
            f"the data {name[:8]} are no longer in the result store, where room was made; "
            "upload them again on the Models page"
        )
    with np.load(path, allow_pickle=False) as file:
        x, y = file["x"], file["y"]
        half = int(file["split"]) if "split" in file else len(y) // 2  # as stores kept it once
    return dataset(x, y, half, name, network)


def uploaded(upload: str, name: str, store: Store) -> Path:
    """Where an upload is.

    Raises:
        MergingError: If room was made for others since.
    """
    path = store.file(upload)
    if path is None:
        raise MergingError(f"the upload of {name} is no longer there; upload it again")
    return path


def keep_checkpoint(
    source: bytes | Path, name: str, store: Store, *, architecture: str = ""
) -> dict[str, Any]:
    """Read a brought checkpoint, find its architecture, and keep it as safetensors.

    The architecture is that of a `.pt2` archive itself; else the one that is given; else what a
    `config.json` beside the weights names; else the bundled one of these names and shapes. Weights
    are read, checked and written tensor by tensor; so is Adam's second moment, where it is beside
    them.

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
        config = _keep_blueprint(archive, store)
        return _keep_weights(
            _specs(archive.weights), archive.weights, {"format": "pt2"}, config, name, store
        )
    with open_checkpoint(source, name) as checkpoint:
        shapes = {
            key: torch.empty(spec.shape, dtype=spec.dtype, device="meta")
            for key, spec in checkpoint.specs.items()
        }
        whole: Mapping[str, Tensor] = shapes
        config = config_of(shapes, checkpoint.meta, name, architecture)
        if not is_bundled(config):
            network = network_of(canonical(config), store)
            whole = with_tied(shapes, network)
            check_weights(whole, network, name)
        homes = _homes(whole, shapes)  # tied tensors have several names
        on_disk = LazyParams(homes, lambda key: checkpoint.tensor(homes[key]))
        meta = checkpoint.meta
        kept = _keep_weights(_specs(whole), on_disk, meta, config, name, store)
    if "optimizer" in meta and meta["format"] != "safetensors":  # whose notes are anybody's
        mark, note = _keep_second_moment(source, name, kept["config"], store)
        kept |= {"second_moment": mark, "notes": [*kept["notes"], note]}
    return kept


def _keep_second_moment(
    source: bytes | Path, name: str, config: str, store: Store
) -> tuple[str, str]:
    """Keep Adam's second moment if it can be had; its fingerprint, and a note for a person."""
    model = network_of(config, store).model
    try:
        with open_second_moment(source, name, model=model) as moment:
            mark = _stored(moment.specs, moment, {}, store)
    except CheckpointError as error:
        return "", f"No curvature from its optimizer: {error}."
    return mark, f"Adam's second moment of {len(moment)} tensors is there, as a curvature."


def _homes(whole: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, str]:
    """For every name, the name that its tensor has in the file."""
    first = {id(value): key for key, value in given.items()}
    return {key: first[id(value)] for key, value in whole.items()}


def _specs(params: Mapping[str, Tensor]) -> dict[str, TensorSpec]:
    return {key: TensorSpec(tuple(v.shape), v.dtype) for key, v in params.items()}


def _keep_weights(
    specs: Mapping[str, TensorSpec],
    params: Mapping[str, Tensor],
    meta: Mapping[str, str],
    config: Mapping[str, Any],
    name: str,
    store: Store,
) -> dict[str, Any]:
    check_finite(params, name)
    return {
        "name": name,
        "fingerprint": _stored(specs, params, _notes_kept(meta), store),
        "config": canonical(config),
        "tensors": len(specs),
        "parameters": sum(math.prod(spec.shape) for spec in specs.values()),
        "notes": _notes(meta),
        "prefix": meta.get("stripped_prefix", ""),
        "keeps_statistics": any(key.rpartition(".")[2] == "running_mean" for key in specs),
    }


def _stored(
    specs: Mapping[str, TensorSpec],
    params: Mapping[str, Tensor],
    meta: Mapping[str, str],
    store: Store,
) -> str:
    """Keep tensors, one by one, under their fingerprint."""
    mark = fingerprint(params)
    path = store.folder / f"{mark}.{os.getpid()}.tmp.safetensors"
    try:
        stream_checkpoint(path, specs, params.__getitem__, meta)
        store.put_file(mark, path, ".safetensors")
    finally:
        path.unlink(missing_ok=True)
    return mark


def _keep_blueprint(archive: Archive, store: Store) -> dict[str, str]:
    shapes = {key: [list(v.shape), str(v.dtype)] for key, v in archive.weights.items()}
    parts = [archive.blueprint, canonical(shapes), fingerprint(archive.constants)]
    mark = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    data = blueprint_bytes(archive.blueprint, archive.constants, archive.weights)
    store.put_file(mark, data, ".safetensors")
    return {"architecture": "exported", "blueprint": mark}


def _notes_kept(meta: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in meta.items() if key != "config"}


def _notes(meta: Mapping[str, str]) -> list[str]:
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
    return keep_arrays(read_data(source, name), name, config, store)


def keep_arrays(found: BroughtArrays, name: str, config: str, store: Store) -> dict[str, Any]:
    """Check that examples fit an architecture, and keep them.

    Args:
        found: The examples.
        name: What screens call them.
        config: Canonical JSON of the architecture.
        store: The store.

    Returns:
        The fields of `requests.BroughtData`.

    Raises:
        MergingError: If they do not fit.
    """
    network = network_of(config, store)
    x, y, half, notes = parted(found, network)
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
        "notes": list(notes),
    }
