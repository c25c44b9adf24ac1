"""Keep what a person uploaded: checked, and under its fingerprint."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from merging.files.checkpoints.fingerprint import fingerprint
from merging.files.checkpoints.lazy_params import LazyParams
from merging.files.checkpoints.limits import first_few
from merging.files.checkpoints.read import (
    TensorSpec,
    check_finite,
    open_checkpoint,
    stream_checkpoint,
)
from merging.files.checkpoints.second_moment import open_second_moment
from merging.files.data.arrays import ExampleArrays
from merging.files.data.read import read_data
from merging.models.exported.blueprint_file import blueprint_bytes
from merging.models.exported.pt2_archive import Archive, looks_like_pt2, read_pt2
from merging.models.names import Fitted, fit_names
from merging.models.network import check_tied, check_weights, is_bundled, with_tied
from merging.models.read_examples import parted
from merging.models.read_model import config_of
from merging.results.compute.store import Store
from merging.results.requests import (
    canonical,
)
from merging.results.requests.models import ChosenSpec, UploadedCheckpoint, UploadedData
from merging.results.uploads.load import Stored, _certified, network_of
from merging.schema.errors import CheckpointError, MergingError
from merging.schema.running_statistics import is_running_statistic
from merging.symmetry import check_by_hand, frozen, read_spec


def keep_spec(text: str, config: str, store: Store, *, freeze: Sequence[str] = ()) -> ChosenSpec:
    """Prove a spec that a person chose, and keep it.

    Args:
        text: JSON as `PermutationSpec.from_json` reads it; empty for the derived spec.
        config: Canonical JSON of the architecture.
        store: The store.
        freeze: Groups to leave out of it.

    Returns:
        What was kept; no fingerprint if it is the derived spec itself.

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
        store.files.put(mark, written.encode(), ".json")
    return ChosenSpec(mark, len(spec.sizes), spec.units)


def uploaded(upload: str, name: str, store: Store) -> Path:
    """Return where an upload is.

    Raises:
        MergingError: If room was made for others since.
    """
    path = store.files.path(upload)
    if path is None:
        raise MergingError(f"the upload of {name} is no longer there; upload it again")
    return path


def keep_checkpoint(
    source: bytes | Path, name: str, store: Store, *, architecture: str = ""
) -> UploadedCheckpoint:
    """Read an uploaded checkpoint, find its architecture, and keep it as safetensors.

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
        What was kept.

    Raises:
        MergingError: If the file is not a checkpoint, or its architecture cannot be found.
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
        fitted = Fitted(homes={key: key for key in shapes})
        config = config_of(shapes, checkpoint.meta, name, architecture)
        if not is_bundled(config):
            network = network_of(canonical(config), store)
            fitted = fit_names(shapes, network)
            found = {key: shapes[home] for key, home in fitted.homes.items()}
            counters = {key: torch.zeros((), dtype=torch.int64) for key in fitted.counters}
            whole = with_tied(found | counters, network)
            check_weights(whole, network, name)
            there = LazyParams(fitted.homes, lambda key: checkpoint.tensor(fitted.homes[key]))
            check_tied(there, network, name)
        homes = _homes(whole, shapes)  # tied tensors have several names
        on_disk = LazyParams(
            whole, lambda key: checkpoint.tensor(homes[key]) if key in homes else whole[key]
        )
        meta = _with_fitted(checkpoint.meta, fitted)
        kept = _keep_weights(_specs(whole), on_disk, meta, config, name, store)
    if "optimizer" in meta and meta["format"] != "safetensors":  # whose notes are anybody's
        mark, note = _keep_second_moment(source, name, kept.config, store)
        kept = replace(
            kept,
            second_moment=mark,
            no_second_moment="" if mark else note,
            notes=(*kept.notes, note),
        )
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
    """Return for every name the name that its tensor has in the file."""
    first = {id(value): key for key, value in given.items()}
    return {key: first[id(value)] for key, value in whole.items() if id(value) in first}


def _with_fitted(meta: Mapping[str, str], fitted: Fitted) -> dict[str, str]:
    """Return the notes of a file, and what fitting its names to a network found out."""
    said = dict(meta)
    if fitted.prefix:
        said["stripped_prefix"] = meta.get("stripped_prefix", "") + fitted.prefix
    if fitted.ignored:
        beside = first_few([repr(key) for key in fitted.ignored])
        said["ignored"] = ", ".join(filter(None, (meta.get("ignored"), beside)))
    return said


def _specs(params: Mapping[str, Tensor]) -> dict[str, TensorSpec]:
    return {key: TensorSpec(tuple(v.shape), v.dtype) for key, v in params.items()}


def _keep_weights(
    specs: Mapping[str, TensorSpec],
    params: Mapping[str, Tensor],
    meta: Mapping[str, str],
    config: Mapping[str, Any],
    name: str,
    store: Store,
) -> UploadedCheckpoint:
    check_finite(params, name)
    return UploadedCheckpoint(
        name=name,
        fingerprint=_stored(specs, params, _notes_kept(meta), store),
        config=canonical(config),
        tensors=len(specs),
        parameters=sum(math.prod(spec.shape) for spec in specs.values()),
        notes=tuple(_notes(meta)),
        prefix=meta.get("stripped_prefix", ""),
        keeps_statistics=any(is_running_statistic(key) for key in specs),
    )


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
        store.files.put(mark, path, ".safetensors")
    finally:
        path.unlink(missing_ok=True)
    return mark


def _keep_blueprint(archive: Archive, store: Store) -> dict[str, str]:
    shapes = {key: [list(v.shape), str(v.dtype)] for key, v in archive.weights.items()}
    parts = [archive.blueprint, canonical(shapes), fingerprint(archive.constants)]
    mark = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    data = blueprint_bytes(archive.blueprint, archive.constants, archive.weights)
    store.files.put(mark, data, ".safetensors")
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


def keep_data(source: bytes | Path, name: str, config: str, store: Store) -> UploadedData:
    """Read uploaded examples, check that they fit an architecture, and keep them.

    Args:
        source: The bytes of an upload, or a file on this machine.
        name: The name that it came with; only for messages.
        config: Canonical JSON of the architecture.
        store: The store.

    Returns:
        What was kept.

    Raises:
        MergingError: If the file holds no examples for this architecture.
    """
    return keep_arrays(read_data(source, name), name, config, store)


def keep_arrays(found: ExampleArrays, name: str, config: str, store: Store) -> UploadedData:
    """Check that examples fit an architecture, and keep them.

    Args:
        found: The examples.
        name: What screens call them.
        config: Canonical JSON of the architecture.
        store: The store.

    Returns:
        What was kept.

    Raises:
        MergingError: If they do not fit.
    """
    network = network_of(config, store)
    own = parted(found, network)
    x, y, half, notes = own.x, own.y, own.train, own.notes
    content = repr((x.shape, y.shape, half)).encode() + x.tobytes() + y.tobytes()
    mark = hashlib.sha256(content).hexdigest()
    path = store.folder / f"{mark}.tmp.npz"
    try:
        np.savez(path, x=x, y=y, split=half)
        store.files.put(mark, path, ".npz")
    finally:
        path.unlink(missing_ok=True)
    return UploadedData(
        name=name,
        fingerprint=mark,
        examples=len(y),
        classes=found.classes,
        notes=tuple(notes),
        kind=found.kind,
    )
