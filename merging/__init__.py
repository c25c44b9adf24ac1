"""Two trained networks, lined up, looked at, and merged.

Public names are looked up when they are first used (PEP 562), so that the interface process, which
needs only requests, records and figures, never loads torch.
"""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from merging.bringing import read_examples, read_model
    from merging.cards import list_families, list_pairs
    from merging.checkpoints import read_checkpoint, write_checkpoint
    from merging.errors import MergingError
    from merging.families import load_family
    from merging.fusion import (
        diagonal_fisher,
        fuse,
        fuse_files,
        fuse_with_notes,
        gram_matrices,
        on_sum_scale,
    )
    from merging.landscape import (
        Path,
        Swag,
        collect_swag,
        connect,
        evaluate_path,
        evaluate_plane,
        evaluate_simplex,
        filter_normalized_plane,
        interpolate,
        plane_through,
        repair,
        simplex_points,
        swag_moments,
    )
    from merging.matching import ManyResult, MatchResult, align_many, match
    from merging.permutation import permute, random_permutations
    from merging.records import Curve, Surface
    from merging.regions import SimplexLoss
    from merging.second_moment import adam_second_moment
    from merging.spec import PermutationSpec
    from merging.symmetry import certify, find_symmetry
    from merging.zoo import load_pair

_HOMES = MappingProxyType({
    "Curve": "merging.records",
    "ManyResult": "merging.matching",
    "MatchResult": "merging.matching",
    "MergingError": "merging.errors",
    "Path": "merging.landscape",
    "PermutationSpec": "merging.spec",
    "SimplexLoss": "merging.regions",
    "Surface": "merging.records",
    "Swag": "merging.landscape",
    "adam_second_moment": "merging.second_moment",
    "align_many": "merging.matching",
    "certify": "merging.symmetry",
    "collect_swag": "merging.landscape",
    "connect": "merging.landscape",
    "diagonal_fisher": "merging.fusion",
    "evaluate_path": "merging.landscape",
    "evaluate_plane": "merging.landscape",
    "evaluate_simplex": "merging.landscape",
    "filter_normalized_plane": "merging.landscape",
    "find_symmetry": "merging.symmetry",
    "fuse": "merging.fusion",
    "fuse_files": "merging.fusion",
    "fuse_with_notes": "merging.fusion",
    "gram_matrices": "merging.fusion",
    "interpolate": "merging.landscape",
    "list_families": "merging.cards",
    "list_pairs": "merging.cards",
    "load_family": "merging.families",
    "load_pair": "merging.zoo",
    "match": "merging.matching",
    "on_sum_scale": "merging.fusion",
    "permute": "merging.permutation",
    "plane_through": "merging.landscape",
    "random_permutations": "merging.permutation",
    "read_checkpoint": "merging.checkpoints",
    "read_examples": "merging.bringing",
    "read_model": "merging.bringing",
    "repair": "merging.landscape",
    "simplex_points": "merging.landscape",
    "swag_moments": "merging.landscape",
    "write_checkpoint": "merging.checkpoints",
})

__all__ = [
    "Curve",
    "ManyResult",
    "MatchResult",
    "MergingError",
    "Path",
    "PermutationSpec",
    "SimplexLoss",
    "Surface",
    "Swag",
    "adam_second_moment",
    "align_many",
    "certify",
    "collect_swag",
    "connect",
    "diagonal_fisher",
    "evaluate_path",
    "evaluate_plane",
    "evaluate_simplex",
    "filter_normalized_plane",
    "find_symmetry",
    "fuse",
    "fuse_files",
    "fuse_with_notes",
    "gram_matrices",
    "interpolate",
    "list_families",
    "list_pairs",
    "load_family",
    "load_pair",
    "match",
    "on_sum_scale",
    "permute",
    "plane_through",
    "random_permutations",
    "read_checkpoint",
    "read_examples",
    "read_model",
    "repair",
    "simplex_points",
    "swag_moments",
    "write_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'merging' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
