"""Write checkpoints, whole or tensor by tensor."""

from __future__ import annotations

import io
import json
import math
import os
import struct
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import torch
from torch import Tensor

from merging.files.checkpoints.limits import (
    check_dense,
    how_to_convert,
    short,
)
from merging.files.checkpoints.safetensors_format import SAFE_DTYPES
from merging.schema.errors import CheckpointError, StoreError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

from merging.files.checkpoints.tensor_spec import TensorSpec

_BUFFER = 1 << 20  # bytes that small tensors share


_CODES = {dtype: code for code, dtype in SAFE_DTYPES.items()}


def stream_checkpoint(
    path: str | os.PathLike[str],
    specs: Mapping[str, TensorSpec],
    tensor: Callable[[str], Tensor | Iterator[Tensor]],
    meta: Mapping[str, object] | None = None,
) -> None:
    """Write a safetensors file one tensor at a time; it is there whole or not at all.

    Args:
        path: Where; a file that is there is replaced.
        specs: Every tensor's shape and dtype, known before any is made.
        tensor: Asked for each name once, when its turn comes; returns the tensor, or blocks `[n]`
            of its entries, one after another. It should not keep what it returned.
        meta: Notes to keep in the file; values are written as text.

    Raises:
        CheckpointError: If a dtype cannot be written, or `tensor` returns another shape or dtype
            than `specs` says.
        StoreError: If the disk refuses: no such folder, no room, no permission.

    Example:
        >>> import tempfile
        >>> from merging.files.checkpoints.open import open_checkpoint
        >>> specs = {"w": TensorSpec((2,), torch.float32)}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     stream_checkpoint(f"{folder}/m.safetensors", specs, lambda name: torch.ones(2))
        ...     with open_checkpoint(f"{folder}/m.safetensors") as checkpoint:
        ...         checkpoint.tensor("w")
        tensor([1., 1.])
    """
    path = Path(path)
    draft = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with io.BufferedWriter(_Prompt(draft, "xb"), _BUFFER) as file:
            write_tensors(file, specs, tensor, meta, path.name)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise StoreError(
            f"{path.name}: the checkpoint cannot be written ({error}); "
            "check that the folder exists, that it may be written to, and that the disk has room"
        ) from error
    finally:
        draft.unlink(missing_ok=True)


class _Prompt(io.FileIO):
    """A file that the system begins to put on the disk while more is still being written.

    So there is little left to wait for when all has to be there. What is on the disk already may
    leave the cache.
    """

    def write(self, data: ReadableBuffer, /) -> int:
        written = super().write(data)
        if sys.platform == "linux":
            start = self.tell() - written
            os.posix_fadvise(self.fileno(), start, written, os.POSIX_FADV_DONTNEED)
        return written


def write_tensors(
    file: BinaryIO,
    specs: Mapping[str, TensorSpec],
    tensor: Callable[[str], Tensor | Iterator[Tensor]],
    meta: Mapping[str, object] | None,
    name: str,
) -> None:
    """Write what a safetensors file holds, one tensor at a time; equal models give equal bytes.

    Args:
        file: Where to.
        specs: Every tensor's shape and dtype.
        tensor: Asked for each name once, when its turn comes; as in `stream_checkpoint`.
        meta: Notes to keep in the file; values are written as text.
        name: What to call the file in messages.

    Raises:
        CheckpointError: If a dtype cannot be written, or `tensor` returns another shape or dtype
            than `specs` says.
    """
    # Wide numbers first, so that each tensor begins where its dtype may.
    order = sorted(specs, key=lambda key: (-specs[key].dtype.itemsize, key))
    file.write(_header(specs, order, meta, name))
    for key in order:
        _write(file, key, tensor(key), specs[key], name)


def _header(
    specs: Mapping[str, TensorSpec],
    order: Iterable[str],
    meta: Mapping[str, object] | None,
    name: str,
) -> bytes:
    header: dict[str, object] = {}
    if meta:
        header["__metadata__"] = {str(key): str(value) for key, value in meta.items()}
    at = 0
    for key in order:
        spec = specs[key]
        if spec.dtype not in _CODES:
            raise CheckpointError(
                f"{name}: tensor {short(key)} has dtype {spec.dtype}, which cannot be written; "
                f"{how_to_convert(spec.dtype.is_complex)}"
            )
        header[key] = {
            "dtype": _CODES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [at, at + spec.nbytes],
        }
        at += spec.nbytes
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _write(
    file: BinaryIO, key: str, given: Tensor | Iterator[Tensor], spec: TensorSpec, name: str
) -> None:
    if isinstance(given, Tensor):
        check_dense(key, given, name)
        _check_announced(key, tuple(given.shape), given.dtype, spec, name)
        _write_entries(file, given)
        return
    written = 0
    for block in given:
        _check_announced(key, spec.shape, block.dtype, spec, name)
        _write_entries(file, block)
        written += block.numel()
    if written != math.prod(spec.shape):
        _check_announced(key, (written,), spec.dtype, spec, name)


def _check_announced(
    key: str, shape: tuple[int, ...], dtype: torch.dtype, spec: TensorSpec, name: str
) -> None:
    if shape != spec.shape or dtype != spec.dtype:
        raise CheckpointError(
            f"{name}: tensor {short(key)} is {list(shape)} of {dtype}, and "
            f"{list(spec.shape)} of {spec.dtype} was announced"
        )


def _write_entries(file: BinaryIO, tensor: Tensor) -> None:
    plain = tensor.detach().cpu().contiguous()
    raw = plain.as_strided((plain.numel(),), (1,), plain.storage_offset()).view(torch.uint8)
    if struct.pack("=H", 1) != struct.pack("<H", 1):
        raw = raw.view(-1, plain.element_size()).flip(1).contiguous()
    file.write(raw.numpy().data)


def write_checkpoint(
    path: str | os.PathLike[str],
    params: Mapping[str, Tensor],
    meta: Mapping[str, object] | None = None,
) -> None:
    """Write a safetensors file that is either there whole or not there at all.

    Args:
        path: Where; a file that is there is replaced.
        params: Dense tensors, any device and strides; tensors that share memory are written apart.
        meta: Notes to keep in the file; values are written as text.

    Raises:
        StoreError: If the disk refuses: no such folder, no room, no permission.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_checkpoint(f"{folder}/model.safetensors", {"w": torch.ones(2)})
    """
    stream_checkpoint(path, _specs(params), params.__getitem__, meta)


def checkpoint_bytes(
    params: Mapping[str, Tensor], meta: Mapping[str, object] | None = None
) -> bytes:
    """Return what `write_checkpoint` would write, for a download; equal models give equal bytes.

    Example:
        >>> len(checkpoint_bytes({"w": torch.ones(2)})) > 8
        True
    """
    file = io.BytesIO()
    write_tensors(file, _specs(params), params.__getitem__, meta, "the file")
    return file.getvalue()


def _specs(params: Mapping[str, Tensor]) -> dict[str, TensorSpec]:
    for key, tensor in params.items():
        check_dense(key, tensor, "cannot be written")
    return {key: TensorSpec(tuple(tensor.shape), tensor.dtype) for key, tensor in params.items()}
