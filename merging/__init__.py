"""Two trained networks, lined up, looked at, and merged.

Public names are looked up when they are first used (PEP 562), so that the interface process, which
needs only requests, records and figures, never loads torch.
"""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from merging.files.checkpoints.read import read_checkpoint
    from merging.files.checkpoints.second_moment import adam_second_moment
    from merging.files.checkpoints.write import write_checkpoint
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
    from merging.models.read_examples import read_examples
    from merging.models.read_model import read_model
    from merging.models.zoo.families import load_family
    from merging.models.zoo.pairs import load_pair
    from merging.schema.cards.zoo import list_families, list_pairs
    from merging.schema.errors import MergingError
    from merging.schema.records.curve import Curve
    from merging.schema.records.simplex import SimplexLoss
    from merging.schema.records.surface import Surface
    from merging.symmetry import certify, find_symmetry
    from merging.symmetry.permutation import permute, random_permutations
    from merging.symmetry.spec import PermutationSpec

_HOMES = MappingProxyType({
    "Curve": "merging.schema.records.curve",
    "ManyResult": "merging.matching",
    "MatchResult": "merging.matching",
    "MergingError": "merging.schema.errors",
    "Path": "merging.landscape",
    "PermutationSpec": "merging.symmetry.spec",
    "SimplexLoss": "merging.schema.records.simplex",
    "Surface": "merging.schema.records.surface",
    "Swag": "merging.landscape",
    "adam_second_moment": "merging.files.checkpoints.second_moment",
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
    "list_families": "merging.schema.cards.zoo",
    "list_pairs": "merging.schema.cards.zoo",
    "load_family": "merging.models.zoo.families",
    "load_pair": "merging.models.zoo.pairs",
    "match": "merging.matching",
    "on_sum_scale": "merging.fusion",
    "permute": "merging.symmetry.permutation",
    "plane_through": "merging.landscape",
    "random_permutations": "merging.symmetry.permutation",
    "read_checkpoint": "merging.files.checkpoints.read",
    "read_examples": "merging.models.read_examples",
    "read_model": "merging.models.read_model",
    "repair": "merging.landscape",
    "simplex_points": "merging.landscape",
    "swag_moments": "merging.landscape",
    "write_checkpoint": "merging.files.checkpoints.write",
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
