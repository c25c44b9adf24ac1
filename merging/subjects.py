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
    checkpoint_bytes,
    fingerprint,
    read_checkpoint,
    read_checkpoint_bytes,
)
from merging.data.base import Batches, Dataset
from merging.data.brought import check_fits, read_npz
from merging.data.bundled import DATASETS, load_dataset
from merging.errors import DataError, MergingError
from merging.models.registry import architecture_of, build_model, example_inputs, infer_config
from merging.params import check_same_architecture, in_order
from merging.requests import CORRECTION_EXAMPLES, SHOWN_EXAMPLES, Statistics, Subject
from merging.spec import PermutationSpec
from merging.store import Store
from merging.symmetry import find_symmetry

TensorDict = dict[str, Tensor]


@dataclass(frozen=True)
class Loaded:
    """What a request is about, in memory; shared between requests, so never written to."""

    model: nn.Module
    spec: PermutationSpec
    params_a: TensorDict
    params_b: TensorDict
    data: Dataset

    def statistics_examples(self, kind: Statistics) -> Batches:
        """Training examples that the statistics of hidden units are taken on."""
        corrects = kind in ("repair", "rescale")
        return self.data.train.take(CORRECTION_EXAMPLES if corrects else SHOWN_EXAMPLES)

    def split(self, name: str) -> Batches:
        """The examples of a split that screens show."""
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
    model, spec = certified(subject.config)
    params_a, params_b = (
        in_order(load_params(wanted, stored.store), model.state_dict())
        for wanted in (subject.model_a, subject.model_b)
    )
    check_same_architecture(params_a, params_b)
    data = _data(subject, stored.store)
    _check_inputs(model, data, json.loads(subject.config))
    return Loaded(model, spec, _wide(params_a), _wide(params_b), data)


def _check_inputs(model: nn.Module, data: Dataset, config: dict[str, Any]) -> None:
    example = data.test.inputs[:1]
    try:
        with torch.no_grad():
            model(example)
    except RuntimeError as error:
        wanted = architecture_of(config).input_shape(config)
        raise DataError(
            f"{data.title} has examples of shape {list(example.shape[1:])}, but this model reads "
            f"{list(wanted)}; choose data that fit it on the Models page"
        ) from error


def _wide(params: TensorDict) -> TensorDict:
    """Half precision is computed in float32."""
    return {
        name: value.float() if value.is_floating_point() else value
        for name, value in params.items()
    }


@lru_cache(maxsize=8)
def certified(config: str) -> tuple[nn.Module, PermutationSpec]:
    """The network of a config, and its certified spec.

    Raises:
        MergingError: If the config is unknown or the spec cannot be certified.
    """
    sizes = json.loads(config)
    model = build_model(sizes)
    return model, find_symmetry(model, example_inputs(sizes))


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


def _data(subject: Subject, store: Store) -> Dataset:
    if subject.data in DATASETS:
        return load_dataset(subject.data)
    path = store.file(subject.data)
    if path is None:
        raise MergingError(
            f"the data {subject.data[:8]} are no longer in the result store, where room was made; "
            "upload them again on the Models page"
        )
    with np.load(path, allow_pickle=False) as file:
        x, y = torch.from_numpy(file["x"]), torch.from_numpy(file["y"])
    half = len(y) // 2
    train, test = (
        Batches(x[:half], y[:half], name="train"),
        Batches(x[half:], y[half:], name="test"),
    )
    return Dataset(
        subject.data, "Brought data", train, test, classes_of(json.loads(subject.config))
    )


def classes_of(config: dict[str, Any]) -> int:
    """Number of classes that a network tells apart."""
    with torch.no_grad():
        outputs = build_model(config)(*example_inputs(config)).shape[1]
    return max(2, int(outputs))


def keep_checkpoint(upload: str, name: str, store: Store) -> dict[str, Any]:
    """Read an uploaded checkpoint, check it, and keep it as safetensors.

    Args:
        upload: Key of the bytes in the store.
        name: The name that the file came with; only for messages.
        store: The store.

    Returns:
        The fields of `requests.BroughtCheckpoint`.

    Raises:
        MergingError: If the file is no checkpoint of a bundled architecture.
    """
    params, meta = read_checkpoint_bytes(_uploaded(upload, name, store), name)
    config = infer_config(params, name)
    mark = fingerprint(params)
    store.put_file(mark, checkpoint_bytes(params, meta), ".safetensors")
    notes = []
    if "stripped_prefix" in meta:
        notes.append(f"The prefix {meta['stripped_prefix']!r} was cut off all names.")
    if "found_under" in meta:
        notes.append(f"The weights were found under {meta['found_under']!r}.")
    if "ignored" in meta:
        notes.append(f"Left out beside the weights: {meta['ignored']}.")
    return {
        "name": name,
        "fingerprint": mark,
        "config": json.dumps(config, sort_keys=True, separators=(",", ":")),
        "tensors": len(params),
        "parameters": sum(value.numel() for value in params.values()),
        "notes": notes,
    }


def keep_data(upload: str, name: str, config: str, store: Store) -> dict[str, Any]:
    """Read uploaded examples, check that they fit an architecture, and keep them.

    Args:
        upload: Key of the bytes in the store.
        name: The name that the file came with; only for messages.
        config: Canonical JSON of the architecture.
        store: The store.

    Returns:
        The fields of `requests.BroughtData`.

    Raises:
        MergingError: If the file holds no examples for this architecture.
    """
    sizes = json.loads(config)
    x, y = read_npz(_uploaded(upload, name, store), name)
    classes = classes_of(sizes)
    x = check_fits(x, y, architecture_of(sizes).input_shape(sizes), classes)
    order = np.random.default_rng(0).permutation(len(y))
    x, y = np.ascontiguousarray(x[order]), y[order]
    mark = hashlib.sha256(repr((x.shape, y.shape)).encode() + x.tobytes() + y.tobytes()).hexdigest()
    path = store.folder / f"{mark}.tmp.npz"
    try:
        np.savez(path, x=x, y=y)
        store.put_file(mark, path, ".npz")
    finally:
        path.unlink(missing_ok=True)
    half = len(y) // 2
    notes = [
        f"The first {half} examples (in a fixed random order) are for matching and statistics, "
        f"the other {len(y) - half} for the test curves."
    ]
    return {
        "name": name,
        "fingerprint": mark,
        "examples": len(y),
        "classes": classes,
        "notes": notes,
    }


def _uploaded(upload: str, name: str, store: Store) -> bytes:
    path = store.file(upload)
    if path is None:
        raise MergingError(f"the upload of {name} is no longer there; upload it again")
    return path.read_bytes()
