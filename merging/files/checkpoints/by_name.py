"""Files of weights of the kind that their names say: safetensors, or PyTorch's."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from merging.schema.errors import CheckpointError, StoreError

_TORCH = (".pt", ".pth", ".bin")
_FOREIGN = (".ckpt", ".pt2", ".onnx", ".gguf", ".h5", ".keras", ".npz", ".npy", ".pkl", ".pickle")


def is_torch_name(path: str | os.PathLike[str]) -> bool:
    """Return whether a name promises a PyTorch file.

    Args:
        path: Where weights are to be written.

    Returns:
        Whether it ends as PyTorch's files do.

    Raises:
        CheckpointError: If it promises a kind of file that is not written.

    Example:
        >>> is_torch_name("merged.pt"), is_torch_name("merged.safetensors")
        (True, False)
    """
    suffix = Path(path).suffix.lower()
    if suffix in _FOREIGN:
        raise CheckpointError(
            f"{Path(path).name}: {suffix} files are not written; choose a name that ends in "
            ".safetensors or .pt"
        )
    return suffix in _TORCH


def write_torch(path: str | os.PathLike[str], params: Mapping[str, Tensor]) -> None:
    """Write a PyTorch file of plain tensors, which is there whole or not at all.

    Args:
        path: Where; a file that is there is replaced.
        params: Tensors; each is written apart, also where two share memory.

    Raises:
        StoreError: If the disk refuses.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_torch(f"{folder}/model.pt", {"w": torch.ones(2)})
        ...     torch.load(f"{folder}/model.pt", weights_only=True)
        {'w': tensor([1., 1.])}
    """
    path = Path(path)
    draft = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with draft.open("xb") as file:
            torch.save({name: value.detach().clone() for name, value in params.items()}, file)
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


def write_as_named(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file of weights, made by this project, as the kind that its name says.

    Args:
        path: Where; a file that is there is replaced.
        data: A safetensors file, or what goes under a name that promises nothing of PyTorch.
    """
    if is_torch_name(path):
        write_torch(path, safetensors.torch.load(data))
    else:
        Path(path).write_bytes(data)
