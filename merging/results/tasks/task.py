"""What tasks of all kinds share: their form, and the aligned model B."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from merging.results import requests
from merging.results.compute.run_piece import Context
from merging.results.compute.store import Store
from merging.results.tasks.load_pair import Loaded
from merging.schema.errors import MergingError
from merging.symmetry.permutation import permute

Part = Mapping[str, Any]
# What it returns is a record, which the request encodes.
Task = Callable[[Any, Part, Context], Any]


def aligned_b(
    loaded: Loaded, alignment: requests.AlignmentRequest | None, store: Store
) -> dict[str, Tensor]:
    """Return model B in the order of an alignment, or as it is.

    Raises:
        MergingError: If the alignment's result is missing.
    """
    if alignment is None:
        return loaded.params_b
    return permute(loaded.spec, permutations_of(alignment, store), loaded.params_b)


def permutations_of(alignment: requests.AlignmentRequest, store: Store) -> dict[str, Tensor]:
    """Return the permutations of an alignment that was computed before.

    Raises:
        MergingError: If its result is missing.
    """
    found = alignment.read(store)
    if found is None:
        raise MergingError(f"the result of {alignment.title.lower()} is missing; run it again")
    return {group: torch.from_numpy(perm) for group, perm in found.permutations.items()}


def to_arrays(state: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Return what a method could go on from, as a store keeps it."""
    return {name: value.numpy() for name, value in state.items()}


def to_tensors(state: Mapping[str, np.ndarray] | None) -> dict[str, Tensor] | None:
    """Return what a method goes on from, as a store kept it."""
    if state is None:
        return None
    return {name: torch.from_numpy(value) for name, value in state.items()}


def statistics_words(kind: str, examples: int) -> str:
    """Say in words what was done about the statistics of hidden units."""
    if kind == "interpolated":
        return "interpolated"
    return f"{kind.upper()} on {examples:,} training examples"
