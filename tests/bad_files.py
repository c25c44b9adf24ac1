"""Files that are no checkpoints or examples of a model, each bad in its own way."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from merging.files.checkpoints.write import checkpoint_bytes


def saved(value: object) -> bytes:
    """What `torch.save` writes."""
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def with_prefix(params: Mapping[str, Tensor], prefix: str = "module.") -> bytes:
    """A good file, as a wrapped model writes it."""
    return saved({f"{prefix}{name}": value for name, value in params.items()})


def truncated(params: Mapping[str, Tensor]) -> bytes:
    """The first half of a safetensors file."""
    data = checkpoint_bytes(params)
    return data[: len(data) // 2]


class _Runs:
    """Makes a file as soon as it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def with_code(marker: Path, params: Mapping[str, Tensor]) -> bytes:
    """A PyTorch zip file that makes `marker` where it is trusted."""
    return saved({**params, "extra": _Runs(marker)})


def plain_pickle(marker: Path) -> bytes:
    """A plain pickle that makes `marker` where it is trusted."""
    return pickle.dumps(_Runs(marker))


def with_nan(params: Mapping[str, Tensor], name: str) -> bytes:
    """A safetensors file with NaN in one tensor."""
    bad = params[name].clone()
    bad.view(-1)[:2] = torch.nan
    return checkpoint_bytes({**params, name: bad})


def npz(**arrays: object) -> bytes:
    """What `np.savez` writes."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def examples(shape: tuple[int, ...], n: int = 20, *, classes: int = 10) -> bytes:
    """Good examples."""
    rng = np.random.default_rng(0)
    return npz(x=rng.normal(size=(n, *shape)).astype(np.float32), y=np.arange(n) % classes)


def bad_examples(shape: tuple[int, ...]) -> dict[str, tuple[bytes, str]]:
    """Examples that cannot be used for inputs of a shape and 10 classes, and what is said."""
    x = np.zeros((4, *shape), np.float32)
    nan = x.copy()
    nan[1] = np.nan
    return {
        "labels-out-of-range": (npz(x=x, y=[0, 1, 2, 11]), "outside 0 to 9"),
        "empty": (npz(x=x[:0], y=np.zeros(0, np.int64)), "no data"),
        "wrong-shape": (npz(x=np.zeros((4, 3, 7, 7), np.float32), y=[0] * 4), "the model takes"),
        "without-y": (npz(x=x), "lacks 'y'"),
        "not-finite": (npz(x=nan, y=[0] * 4), "finite"),
        "objects": (npz(x=np.array([{}, {}], object), y=[0, 1]), "mine.npz"),
        "no-npz": (b"PK\x03\x04 nothing of the kind", "not a complete .npz"),
    }
