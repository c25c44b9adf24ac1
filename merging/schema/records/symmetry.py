"""The permutation groups of a model, and their certificate."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GroupCertificate:
    """One permutation group of a certified spec."""

    name: str
    units: int
    axes: tuple[str, ...]


@dataclass(frozen=True)
class FrozenAxis:
    """A parameter's axis that must not be permuted, and why."""

    parameter: str
    axis: int
    units: int
    reason: str


@dataclass(frozen=True)
class SymmetrySummary:
    """The permutation groups of a model, what is fixed and why, and the certificate.

    `spec` is the whole spec as JSON, as `PermutationSpec.from_json` reads it.
    """

    groups: tuple[GroupCertificate, ...]
    frozen: tuple[FrozenAxis, ...]
    unknown_operators: tuple[str, ...]
    log10_orderings: float
    max_relative_difference: float
    tolerance: float
    certified: bool
    share_moved: float
    seconds: float
    spec: str = "{}"

    @property
    def keeps_statistics(self) -> bool:
        """Whether the model keeps running statistics (BatchNorm)."""
        return any("running_mean" in axis for group in self.groups for axis in group.axes)
