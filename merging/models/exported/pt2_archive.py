"""Archives of `torch.export.save` (`.pt2`): an architecture's graph together with its weights.

Read without PyTorch's own loader, which evaluates expressions of the file: weights are raw bytes
whose places and sizes are checked, and the graph is taken over as data (`models.blueprint`).
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from merging.files import zip_archive
from merging.files.checkpoints.lazy_params import Params
from merging.files.checkpoints.limits import (
    DEFAULT_LIMITS,
    Limits,
    check_dims,
    check_names,
    check_size,
    refuse,
)
from merging.files.checkpoints.torch_zip import check_pt2, open_zip
from merging.files.zip_archive import ArchiveError
from merging.models.exported.blueprint import ExportedModel, blueprint_text
from merging.models.exported.plan import dtype_of
from merging.schema.errors import CheckpointError
from merging.schema.how_to_export import HOW_TO_EXPORT

_MAX_JSON = 32_000_000
_MAX_MARKS = 2_000_000  # of JSON; each makes an object
_STRIDED = 7
_MARKS = ("/archive_format", "serialized_exported_program.json")


@dataclass(frozen=True, eq=False)
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


def looks_like_pt2(source: bytes | Path) -> bool:
    """Return whether a file was written by `torch.export.save`, of whatever version."""
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            entries = open_zip(file, "", DEFAULT_LIMITS).entries
    except (OSError, CheckpointError):
        return False  # whoever reads it as anything else says what is wrong
    return any(name.endswith(_MARKS) for name in entries)


def read_pt2(data: bytes, name: str, *, limits: Limits = DEFAULT_LIMITS) -> Archive:
    """Read an archive.

    Args:
        data: The whole file.
        name: What to call the file in messages.
        limits: The most it may hold.

    Returns:
        Weights, constants and graph.

    Raises:
        CheckpointError: If it is of an older layout, damaged, over the limits, or holds anything
            but tensors and one graph.
    """
    check_size(len(data), name, limits)
    try:
        entries = open_zip(io.BytesIO(data), name, limits)
        _check_layout(entries, name)
        check_pt2(entries, name)
        return _read(entries, name, limits)
    except ArchiveError as error:
        raise CheckpointError(f"{name}: {error}; export the model again") from error


def _check_layout(archive: zip_archive.Archive, name: str) -> None:
    if not any(key.endswith("/archive_format") for key in archive.entries):
        raise CheckpointError(
            f"{name}: was exported by an older PyTorch, in a layout that holds pickles; "
            f"export it with PyTorch 2.9 or newer:\n{HOW_TO_EXPORT}"
        )


def _read(archive: zip_archive.Archive, name: str, limits: Limits) -> Archive:
    root = next(iter(archive.entries)).split("/")[0]
    models = [key for key in archive.entries if key.startswith(f"{root}/models/")]
    if len(models) != 1:
        raise CheckpointError(f"{name}: holds {len(models)} models; export one at a time")
    description = _json(archive, models[0], name)
    weights = _tensors(archive, root, "weights", name, limits)
    constants = _tensors(archive, root, "constants", name, limits)
    check_names(weights, name, limits)
    found = Archive(weights, constants, blueprint_text(description, name))
    model = ExportedModel(found.blueprint, weights, constants, name)  # refuses what is not run here
    model.foresee(name)
    return found


def _json(archive: zip_archive.Archive, key: str, name: str) -> Any:
    short_name = key.rpartition("/")[2]
    if key not in archive.entries:
        raise CheckpointError(f"{name}: lacks its {short_name}; export the model again")
    text = archive.read(key, _MAX_JSON)
    if sum(map(text.count, (b"{", b"[", b","))) > _MAX_MARKS:
        raise CheckpointError(
            f"{name}: its {short_name} describes more than a model's graph has; export a smaller "
            "model"
        )
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        if isinstance(error, ArchiveError):
            raise
        raise CheckpointError(f"{name}: its {short_name} is not JSON ({error})") from error


def _tensors(
    archive: zip_archive.Archive, root: str, kind: str, name: str, limits: Limits
) -> Params:
    listed = _json(archive, f"{root}/data/{kind}/model_{kind}_config.json", name)
    raw: dict[str, Tensor] = {}
    found: Params = {}
    try:
        if listed["config"]:
            check_names(listed["config"], name, limits)
        for key, place in listed["config"].items():
            if place.get("use_pickle") or place.get("tensor_meta") is None:
                refuse(
                    name, key, "is stored as a pickle, which could run code; export plain tensors"
                )
            path = f"{root}/data/{kind}/{place['path_name']}"
            if path not in archive.entries:
                refuse(name, key, "has no data in the archive; export the model again")
            if path not in raw:
                values = np.frombuffer(bytearray(archive.read(path)), dtype=np.uint8)
                raw[path] = torch.from_numpy(values)
            found[key] = _view(raw[path], place["tensor_meta"], key, name, limits)
    except ArchiveError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
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
