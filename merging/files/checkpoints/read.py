"""Checkpoint files: read with care, written whole, told apart by content.

A checkpoint may come from a stranger. Its kind is found from its bytes, never from its name, and
its directory is checked before any weight takes up memory: sizes, counts, compression, names.
Nothing is ever unpickled: the pickle in a PyTorch file is followed as data. `checkpoint_stream`
opens files, folders and zip files of folders, one tensor at a time, and this module reads them
whole. The guards are in `archives`, `zip_guard`, `pickle_guard` and `checkpoint_guards`;
`checkpoint_formats` knows where tensors lie in each kind of file, and `checkpoint_shards` which
files of a folder are the weights. Every error is a `CheckpointError` that names the file as the
user knows it.
"""

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from merging.files.checkpoints.lazy_params import Params
from merging.files.checkpoints.limits import DEFAULT_LIMITS, Limits, first_few, short
from merging.files.checkpoints.open import OpenCheckpoint, open_checkpoint
from merging.files.checkpoints.tensor_spec import TensorSpec
from merging.files.checkpoints.write import stream_checkpoint
from merging.schema.errors import CheckpointError

__all__ = [
    "DEFAULT_LIMITS",
    "Limits",
    "OpenCheckpoint",
    "TensorSpec",
    "check_finite",
    "map_checkpoint",
    "open_checkpoint",
    "read_checkpoint",
    "read_checkpoint_bytes",
    "stream_checkpoint",
]


def read_checkpoint(
    path: str | os.PathLike[str],
    *,
    limits: Limits = DEFAULT_LIMITS,
    require_finite: bool = True,
) -> tuple[Params, dict[str, str]]:
    """Read the weights in a safetensors or PyTorch zip file or in a model's folder, by content.

    A state dict inside a larger dict (under "state_dict", "model", …) is found, and the wrappers'
    prefixes `module.` and `_orig_mod.` are cut off when all names have them; of a Lightning
    checkpoint, any first part that all names share. In a folder, shards are found by their index.

    Args:
        path: A file or folder on this machine.
        limits: The most it may hold.
        require_finite: Whether NaN or infinity in the weights is an error.

    Returns:
        The tensors: on the CPU, contiguous, in the dtypes of the file, none sharing memory; and
        notes: `format`, `dtypes`, where they apply `found_under`, `ignored`, `stripped_prefix`,
        `optimizer` (the key of an optimizer's state: `adam_second_moment`), and of a folder
        `files`, `shards` and the text of its `config.json` as `config`; and the
        metadata of a safetensors file.

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
    with open_checkpoint(path, limits=limits) as checkpoint:
        return _read(checkpoint, Path(path).name, require_finite)


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
        >>> from merging.files.checkpoints.write import checkpoint_bytes
        >>> read_checkpoint_bytes(checkpoint_bytes({"w": torch.ones(2)}), "mine")[0]
        {'w': tensor([1., 1.])}
    """
    with open_checkpoint(data, name, limits=limits) as checkpoint:
        return _read(checkpoint, name, require_finite)


def map_checkpoint(path: Path) -> Params:
    """Return the tensors of a file that this project wrote, mapped into memory and not read.

    Processes that map one file share its pages, and the system may drop them. Writing to a tensor
    does not reach the file.

    Args:
        path: A safetensors file that was checked when it was written.

    Returns:
        The tensors.

    Raises:
        CheckpointError: If the file is gone or damaged.
    """
    try:
        return safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"{path.name}: the file is gone or damaged ({error}); load the model again"
        ) from error


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
    for key, value in params.items():  # each tensor is read once: they may lie on a disk
        wrong = int(value.numel() - torch.isfinite(value).sum()) if value.is_floating_point() else 0
        if wrong:
            nan = int(torch.isnan(value).sum())
            bad.append(f"{short(key)} ({nan} NaN, {wrong - nan} infinite)")
    if bad:
        raise CheckpointError(
            f"{name}: {len(bad)} of {len(params)} tensors hold values that are not finite: "
            f"{first_few(bad)}. The training probably diverged; choose an earlier checkpoint"
        )


def _read(
    checkpoint: OpenCheckpoint, name: str, require_finite: bool
) -> tuple[Params, dict[str, str]]:
    params = {key: checkpoint.tensor(key) for key in checkpoint}
    meta = {**checkpoint.meta, "dtypes": _dtypes(params)}
    if require_finite:
        check_finite(params, name)
    return params, meta


def _dtypes(params: Params) -> str:
    counts = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in params.values())
    return ", ".join(f"{dtype}: {n}" for dtype, n in sorted(counts.items()))
