"""Prove that a permutation spec leaves a model's function alone, and freeze what does not.

A spec is never trusted: random permutations are applied to the state dict, and outputs are
compared in float64 on random inputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from merging.models.graph.graph import Graph
from merging.schema.errors import SymmetryError
from merging.schema.records.symmetry import GroupCertificate, SymmetrySummary
from merging.symmetry.derive import Derivation, derive
from merging.symmetry.probe import Probe
from merging.symmetry.spec import PermutationSpec

# Largest relative difference of outputs that counts as none, in float64 throughout: what the graph
# itself casts to a narrower type is computed in float64 for the certificate.
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Certificate:
    """How well a permuted model agrees with the original.

    Attributes:
        max_relative_difference: Largest difference of outputs, relative to the largest output.
        tolerance: What is allowed.
        groups: Number of permutation groups.
        units: Number of units in all groups; of nested ones, for all positions of their parents.
        share_moved: Share of the parameters that sit on an axis with a group.
    """

    max_relative_difference: float
    tolerance: float
    groups: int
    units: int
    share_moved: float

    @property
    def ok(self) -> bool:
        """Whether the function is kept."""
        return self.max_relative_difference <= self.tolerance


def find_symmetry(model: nn.Module, example_inputs: Sequence[Tensor]) -> PermutationSpec:
    """Find the permutation symmetries of any model, and prove them.

    Where the function is not kept (because a rule is wrong for this model), nested groups get one
    order for all positions of their parents, and groups for which that does not do are frozen; the
    report names the operator at which the difference first appears.

    Args:
        model: Any module that `torch.export` can export; it is left as it was.
        example_inputs: Inputs of the right shapes, `[n, ...]` each.

    Returns:
        The certified spec.

    Raises:
        SymmetryError: If the model's output differs between two identical calls, or no spec could
            be certified.
    """
    return derive_certified(model, example_inputs).spec


def derive_certified(model: nn.Module, example_inputs: Sequence[Tensor]) -> Derivation:
    """Derive and certify as `find_symmetry` does, and keep what every tensor runs over.

    Raises:
        SymmetryError: If the model's output differs between two identical calls, or no spec could
            be certified.
    """
    derivation = derive(model, example_inputs)
    probe = Probe(model, example_inputs)
    if probe.difference(derivation.spec, seed=0) <= TOLERANCE:
        return derivation
    spec = derivation.spec
    for nested in (True, False):
        # Orders of their own for heads and such are given up first; then the groups.
        bad = frozenset(
            group
            for group in (spec.within if nested else spec.sizes)
            if not probe.difference(spec, seed=0, only=group) <= TOLERANCE
        ) or frozenset(() if nested else spec.sizes)
        if not bad:
            continue
        place = probe.first_difference(derivation, bad)
        spec = (
            spec.sharing(
                bad, f"one order for all: an order for each changes the function at {place}"
            )
            if nested
            else spec.without(bad, f"permuting it changes the function at {place}")
        )
        if probe.difference(spec, seed=0) <= TOLERANCE:
            return Derivation(spec, derivation.graph, derivation.values)
    raise SymmetryError(
        f"no permutation spec of {type(model).__name__} could be certified: outputs change at "
        f"{place}, even with {len(bad)} groups frozen. Give a hand-written spec"
    )


def certify(
    model: nn.Module,
    spec: PermutationSpec,
    example_inputs: Sequence[Tensor],
    *,
    seed: int = 0,
    permutations: Mapping[str, Tensor] | None = None,
) -> Certificate:
    """Check that a spec leaves the function of a model alone.

    Parameters that are constant along an axis (fresh norms and zero biases) would hide a mistake,
    so they are moved a little before the check.

    Args:
        model: The model; it is left as it was.
        spec: The permutation spec, derived or written by hand.
        example_inputs: Inputs whose shapes are used; their values are drawn afresh.
        seed: Seed of the permutations and inputs.
        permutations: Permutations to check; random ones for all groups by default.

    Returns:
        The certificate; see `.ok`.

    Raises:
        SymmetryError: If the spec does not fit the model, or the model's output differs between
            two identical calls.
    """
    probe = Probe(model, example_inputs)
    spec.check(model.state_dict())
    _check_tied(spec, probe.graph)
    difference = probe.difference(spec, seed=seed, permutations=permutations)
    return Certificate(
        max_relative_difference=difference,
        tolerance=TOLERANCE,
        groups=len(spec.sizes),
        units=spec.units,
        share_moved=share_moved(spec),
    )


def _check_tied(spec: PermutationSpec, graph: Graph) -> None:
    for alias, name in graph.aliases.items():
        if spec.axes.get(alias) != spec.axes.get(name):
            raise SymmetryError(
                f"{alias!r} and {name!r} are one tied tensor, but the permutation spec gives them "
                "different groups; give both the same"
            )


def share_moved(spec: PermutationSpec) -> float:
    """Return the share of all parameters (buffers included) that sit on an axis with a group."""
    total = moved = 0
    for axes in spec.axes.values():
        count = 1
        for expression in axes:
            count *= expression.size
        total += count
        moved += count if any(expression.groups for expression in axes) else 0
    return moved / total if total else 0.0


def summarise(spec: PermutationSpec, certificate: Certificate, seconds: float) -> SymmetrySummary:
    """Return what screens show of a certified spec."""
    places = spec.places()
    groups = tuple(
        GroupCertificate(
            group, math.prod(shape), tuple(f"{name}[{axis}]" for name, axis in places[group])
        )
        for group, shape in spec.shapes.items()
    )
    return SymmetrySummary(
        groups=groups,
        frozen=spec.report.frozen,
        unknown_operators=spec.report.unknown_operators,
        log10_orderings=spec.log10_orderings,
        max_relative_difference=certificate.max_relative_difference,
        tolerance=certificate.tolerance,
        certified=certificate.ok,
        share_moved=certificate.share_moved,
        seconds=seconds,
    )
