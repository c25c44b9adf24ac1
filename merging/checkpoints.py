"""Checkpoint files: read with care, written whole, told apart by content.

A checkpoint may come from a stranger. Its kind is found from its bytes, never from its name, and
its directory is checked before any weight takes up memory: sizes, counts, compression, names.
Of a PyTorch file only tensors and plain values are ever built; nothing here falls back to
unpickling. The guards are in `zip_guard`, `pickle_guard` and `checkpoint_guards`, and
`checkpoint_formats` reads each kind of file behind them. Every error is a `CheckpointError` that
names the file as the user knows it.
"""

import hashlib
import io
import json
import os
import struct
import sys
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from merging.checkpoint_formats import read_safetensors, read_torch
from merging.checkpoint_guards import (
    DEFAULT_LIMITS,
    HOW_TO_SAVE,
    Limits,
    check_dense,
    check_size,
    first_few,
    short,
)
from merging.errors import CheckpointError, StoreError
from merging.params import Params, floating

_WRAPPERS = ("module.", "_orig_mod.")
_MAX_HEADER = 100_000_000


def read_checkpoint(
    path: str | os.PathLike[str],
    *,
    limits: Limits = DEFAULT_LIMITS,
    require_finite: bool = True,
) -> tuple[Params, dict[str, str]]:
    """Read the weights in a safetensors or PyTorch zip file, whatever its name.

    A state dict inside a larger dict (under "state_dict", "model", …) is found, and the wrappers'
    prefixes `module.` and `_orig_mod.` are cut off when all names have them.

    Args:
        path: A file on this machine.
        limits: The most it may hold.
        require_finite: Whether NaN or infinity in the weights is an error.

    Returns:
        The tensors: on the CPU, contiguous, in the dtypes of the file, none sharing memory; and
        notes: `format`, `dtypes`, where they apply `found_under`, `ignored` and
        `stripped_prefix`, and the metadata of a safetensors file.

    Raises:
        CheckpointError: If the file is missing, damaged, of another kind, over the limits, holds
            anything but tensors, or could run code.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"module.weight": torch.ones(2)}, f"{folder}/model.pt")
        ...     params, meta = read_checkpoint(f"{folder}/model.pt")
        >>> params["weight"].tolist(), meta["stripped_prefix"]
        ([1.0, 1.0], 'module.')
    """
    path = Path(path)
    try:
        if not path.exists():
            raise CheckpointError(f"{path.name}: there is no such file; check the path")
        if not path.is_file():
            raise CheckpointError(f"{path.name}: this is not a file; choose one checkpoint file")
        with path.open("rb") as file:
            return _read(file, path.name, limits, require_finite)
    except OSError as error:
        raise CheckpointError(f"{path.name}: the file cannot be read ({error.strerror})") from error


def read_checkpoint_bytes(
    data: bytes,
    name: str,
    *,
    limits: Limits = DEFAULT_LIMITS,
    require_finite: bool = True,
) -> tuple[Params, dict[str, str]]:
    """Read a checkpoint that was uploaded; as `read_checkpoint`, from bytes.

    Args:
        data: The whole file.
        name: What to call it in messages; never used as a path.
        limits: The most it may hold.
        require_finite: Whether NaN or infinity in the weights is an error.

    Returns:
        The tensors and the notes, as `read_checkpoint` gives them.

    Example:
        >>> read_checkpoint_bytes(checkpoint_bytes({"w": torch.ones(2)}), "mine")[0]
        {'w': tensor([1., 1.])}
    """
    return _read(io.BytesIO(data), name, limits, require_finite)


def check_finite(params: Mapping[str, Tensor], name: str) -> None:
    """Make sure that no weight is NaN or infinite.

    Args:
        params: Tensors; those that are not floating pass.
        name: What to call the model in the message.

    Raises:
        CheckpointError: If any is; the message names the tensors and counts the entries.

    Example:
        >>> check_finite({"w": torch.ones(2)}, "model A")
    """
    bad = []
    for key in floating(params):
        wrong = int(params[key].numel() - torch.isfinite(params[key]).sum())
        if wrong:
            nan = int(torch.isnan(params[key]).sum())
            bad.append(f"{short(key)} ({nan} NaN, {wrong - nan} infinite)")
    if bad:
        raise CheckpointError(
            f"{name}: {len(bad)} of {len(params)} tensors hold values that are not finite: "
            f"{first_few(bad)}. The training probably diverged; choose an earlier checkpoint"
        )


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
    path = Path(path)
    tensors, notes = _own_copies(params), _as_text(meta)
    draft = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        safetensors.torch.save_file(tensors, draft, notes)
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"{path.name}: the checkpoint cannot be written ({error}); "
            "check that the folder exists, that it may be written to, and that the disk has room"
        ) from error
    finally:
        draft.unlink(missing_ok=True)


def checkpoint_bytes(
    params: Mapping[str, Tensor], meta: Mapping[str, object] | None = None
) -> bytes:
    """Return what `write_checkpoint` would write, for a download.

    Example:
        >>> len(checkpoint_bytes({"w": torch.ones(2)})) > 8
        True
    """
    return safetensors.torch.save(_own_copies(params), _as_text(meta))


def fingerprint(params: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, dtypes, shapes and values.

    Two models have the same fingerprint if and only if they are equal bit for bit; the order of
    the names, strides, devices and file formats do not count.

    Args:
        params: Dense tensors of any dtype and device.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> fingerprint({"w": torch.zeros(2)})[:12]
        '09248d5aa49b'
    """
    digest = hashlib.sha256()
    for name in sorted(params):
        tensor = params[name].detach().cpu().contiguous()
        head = json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode()
        digest.update(struct.pack("<Q", len(head)) + head)
        raw = tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8)
        if sys.byteorder == "big":
            raw = raw.view(-1, tensor.element_size()).flip(1)
        digest.update(raw.numpy().data)
    return digest.hexdigest()


def _read(
    file: BinaryIO, name: str, limits: Limits, require_finite: bool
) -> tuple[Params, dict[str, str]]:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    check_size(size, name, limits)
    head = file.read(9)
    if head[8:] == b"{" and int.from_bytes(head[:8], "little") <= _MAX_HEADER:
        params, meta = read_safetensors(file, size, name, limits)
    elif head.startswith(b"PK\x03\x04"):
        params, meta = read_torch(file, size, name, limits)
    else:
        raise CheckpointError(f"{name}: {_unknown(head)}{HOW_TO_SAVE}")
    params, prefix = _strip_wrappers(params)
    if prefix:
        meta["stripped_prefix"] = prefix
    meta["dtypes"] = _dtypes(params)
    if require_finite:
        check_finite(params, name)
    return params, meta


def _unknown(head: bytes) -> str:
    if head[:1] == b"\x80":
        return (
            "this is a plain pickle, or a PyTorch file from before version 1.6; such a file can "
            "run code when it is opened, so it is not read. Open it where you trust it and "
        )
    return "this is neither a safetensors file nor a PyTorch zip file; "


def _strip_wrappers(params: Params) -> tuple[Params, str]:
    stripped = ""
    while prefix := next((w for w in _WRAPPERS if _all_have(params, w)), ""):
        params = {key.removeprefix(prefix): tensor for key, tensor in params.items()}
        stripped += prefix
    return params, stripped


def _all_have(names: Iterable[str], prefix: str) -> bool:
    return all(key.startswith(prefix) and key != prefix for key in names)


def _dtypes(params: Params) -> str:
    counts = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in params.values())
    return ", ".join(f"{dtype}: {n}" for dtype, n in sorted(counts.items()))


def _own_copies(params: Mapping[str, Tensor]) -> Params:
    for key, tensor in params.items():
        check_dense(key, tensor, "cannot be written")
    return {
        key: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for key, tensor in params.items()
    }


def _as_text(meta: Mapping[str, object] | None) -> dict[str, str]:
    return {str(key): str(value) for key, value in (meta or {}).items()}
