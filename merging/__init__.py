"""Two trained networks, lined up, looked at, and merged.

Public names are looked up when they are first used (PEP 562), so that the interface process, which
needs only requests, records and figures, never loads torch.
"""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from merging.cards import list_pairs
    from merging.checkpoints import read_checkpoint, write_checkpoint
    from merging.errors import MergingError
    from merging.fusion import (
        diagonal_fisher,
        fuse,
        fuse_files,
        fuse_with_notes,
        gram_matrices,
        on_sum_scale,
    )
    from merging.landscape import (
        evaluate_plane,
        filter_normalized_plane,
        interpolate,
        plane_through,
        repair,
    )
    from merging.matching import MatchResult, match
    from merging.permutation import permute, random_permutations
    from merging.records import Curve, Surface
    from merging.spec import PermutationSpec
    from merging.symmetry import certify, find_symmetry
    from merging.zoo import load_pair

_HOMES = MappingProxyType({
    "Curve": "merging.records",
    "MatchResult": "merging.matching",
    "MergingError": "merging.errors",
    "PermutationSpec": "merging.spec",
    "Surface": "merging.records",
    "certify": "merging.symmetry",
    "diagonal_fisher": "merging.fusion",
    "evaluate_plane": "merging.landscape",
    "filter_normalized_plane": "merging.landscape",
    "find_symmetry": "merging.symmetry",
    "fuse": "merging.fusion",
    "fuse_files": "merging.fusion",
    "fuse_with_notes": "merging.fusion",
    "gram_matrices": "merging.fusion",
    "interpolate": "merging.landscape",
    "list_pairs": "merging.cards",
    "load_pair": "merging.zoo",
    "match": "merging.matching",
    "on_sum_scale": "merging.fusion",
    "permute": "merging.permutation",
    "plane_through": "merging.landscape",
    "random_permutations": "merging.permutation",
    "read_checkpoint": "merging.checkpoints",
    "repair": "merging.landscape",
    "write_checkpoint": "merging.checkpoints",
})

__all__ = [
    "Curve",
    "MatchResult",
    "MergingError",
    "PermutationSpec",
    "Surface",
    "certify",
    "diagonal_fisher",
    "evaluate_plane",
    "filter_normalized_plane",
    "find_symmetry",
    "fuse",
    "fuse_files",
    "fuse_with_notes",
    "gram_matrices",
    "interpolate",
    "list_pairs",
    "load_pair",
    "match",
    "on_sum_scale",
    "permute",
    "plane_through",
    "random_permutations",
    "read_checkpoint",
    "repair",
    "write_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'merging' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
