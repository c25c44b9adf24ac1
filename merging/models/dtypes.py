"""Dtypes of a state dict: widened to compute with, and put back to be written."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from merging.files.checkpoints.lazy_params import Params

HALF = (torch.float16, torch.bfloat16)


def in_form(params: Mapping[str, Tensor], dtypes: Mapping[str, torch.dtype], prefix: str) -> Params:
    """Return a state dict in given dtypes and with a prefix.

    A tensor with a value that its dtype cannot hold stays as it is.
    """
    found: Params = {}
    for name, value in params.items():
        narrow = value.to(dtypes.get(name, value.dtype))
        kept = not value.is_floating_point() or bool(narrow.isfinite().all())
        found[prefix + name] = narrow if kept else value
    return found


def form_notes(dtypes: Mapping[str, torch.dtype], prefix: str) -> list[str]:
    """Return what a person should know of the form that a model is written in."""
    notes = []
    narrow = sorted({str(d).removeprefix("torch.") for d in dtypes.values() if d in HALF})
    if narrow:
        notes.append(f"Written in {' and '.join(narrow)}, as the file that it comes from.")
    if prefix:
        notes.append(f"The prefix {prefix!r} was put back before all names.")
    return notes


def widened(params: Mapping[str, Tensor]) -> Params:
    """Widen to float32 what is in half precision, in which nothing is computed."""
    return {
        name: value.float() if value.is_floating_point() else value
        for name, value in params.items()
    }
