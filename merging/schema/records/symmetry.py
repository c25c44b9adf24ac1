"""The permutation groups of a model, and their certificate."""

from __future__ import annotations

from dataclasses import dataclass

from merging.schema.running_statistics import is_running_statistic


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
        tensors = (axis.partition("[")[0] for group in self.groups for axis in group.axes)
        return any(is_running_statistic(name) for name in tensors)
