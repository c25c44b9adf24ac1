"""Archives of `torch.export.save` (`.pt2`): an architecture's graph together with its weights.

Read without PyTorch's own loader, which evaluates expressions of the file: weights are raw bytes
whose places and sizes are checked, and the graph is taken over as data (`models.blueprint`).
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from merging.checkpoint_guards import Limits, check_dims, check_names, refuse
from merging.errors import CheckpointError
from merging.models.blueprint import HOW_TO_EXPORT, blueprint_text, dtype_of
from merging.params import Params

_MAX_JSON = 64_000_000
_STRIDED = 7


@dataclass(frozen=True)
class Archive:
    """What a `.pt2` archive holds.

    Attributes:
        weights: The state dict.
        constants: Tensors that the graph reads beside it.
        blueprint: The graph, as `models.blueprint.ExportedModel` reads it.
    """

    weights: Params
    constants: Params
    blueprint: str


def is_pt2(names: list[str]) -> bool:
    """Whether a zip file with these entries was written by `torch.export.save`."""
    return any(
        name.endswith(("/archive_format", "serialized_exported_program.json")) for name in names
    )


def read_pt2(file: BinaryIO, name: str, limits: Limits) -> Archive:
    """Read an archive whose list of entries was found sound.

    Args:
        file: The archive.
        name: What to call the file in messages.
        limits: The most it may hold.

    Returns:
        Weights, constants and graph.

    Raises:
        CheckpointError: If it is of an older layout, damaged, over the limits, or holds anything
            but tensors and one graph.
    """
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        root = next((key.split("/")[0] for key in entries if key.endswith("/archive_format")), None)
        if root is None:
            raise CheckpointError(
                f"{name}: was exported by an older PyTorch, in a layout that holds pickles; "
                f"export it with PyTorch 2.9 or newer:\n{HOW_TO_EXPORT}"
            )
        models = [key for key in entries if key.startswith(f"{root}/models/")]
        if len(models) != 1:
            raise CheckpointError(f"{name}: holds {len(models)} models; export one at a time")
        description = _json(archive, entries, models[0], name)
        weights = _tensors(archive, entries, root, "weights", name, limits)
        constants = _tensors(archive, entries, root, "constants", name, limits)
    check_names(weights, name, limits)
    return Archive(weights, constants, blueprint_text(description, name))


def _json(
    archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo], key: str, name: str
) -> Any:
    if key not in entries:
        raise CheckpointError(f"{name}: lacks its {key.split('/')[-1]}; export the model again")
    if entries[key].file_size > _MAX_JSON:
        raise CheckpointError(
            f"{name}: its {key.split('/')[-1]} has {entries[key].file_size:,} bytes, more than the "
            f"limit of {_MAX_JSON:,}"
        )
    try:
        return json.loads(archive.read(key))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{name}: its {key.split('/')[-1]} is no JSON ({error})") from error


def _tensors(
    archive: zipfile.ZipFile,
    entries: Mapping[str, zipfile.ZipInfo],
    root: str,
    kind: str,
    name: str,
    limits: Limits,
) -> Params:
    listed = _json(archive, entries, f"{root}/data/{kind}/model_{kind}_config.json", name)
    raw: dict[str, Tensor] = {}
    found: Params = {}
    try:
        for key, place in listed["config"].items():
            if place.get("use_pickle") or place.get("tensor_meta") is None:
                refuse(
                    name, key, "is stored as a pickle, which could run code; export plain tensors"
                )
            path = f"{root}/data/{kind}/{place['path_name']}"
            if path not in entries:
                refuse(name, key, "has no data in the archive; export the model again")
            meta = place["tensor_meta"]
            if path not in raw:
                raw[path] = torch.from_numpy(
                    np.frombuffer(bytearray(archive.read(path)), dtype=np.uint8)
                )
            found[key] = _view(raw[path], meta, key, name, limits)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(
            f"{name}: its list of {kind} is damaged ({type(error).__name__}: {error}); "
            "export the model again"
        ) from error
    return found


def _view(raw: Tensor, meta: Mapping[str, Any], key: str, name: str, limits: Limits) -> Tensor:
    dtype = dtype_of(meta["dtype"], f"{name}: tensor {key[:80]!r}")
    shape, strides = ([size["as_int"] for size in meta[k]] for k in ("sizes", "strides"))
    offset = meta["storage_offset"]["as_int"]
    check_dims(key, len(shape), name, limits)
    numbers = [*shape, *strides, offset]
    if meta["layout"] != _STRIDED or not all(isinstance(n, int) and n >= 0 for n in numbers):
        refuse(name, key, "is not a dense tensor; export it as one")
    stored = raw.numel() // dtype.itemsize
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if math.prod(shape) and (last >= stored or math.prod(shape) > stored):
        refuse(
            name, key, f"of shape {shape} reaches beyond its {raw.numel():,} bytes; export it again"
        )
    if not math.prod(shape):
        return torch.zeros(shape, dtype=dtype)
    values = raw[: stored * dtype.itemsize].view(dtype)
    return values.as_strided(shape, strides, offset).clone(memory_format=torch.contiguous_format)
