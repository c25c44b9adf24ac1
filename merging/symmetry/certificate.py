"""Prove that a permutation spec leaves a model's function alone, and freeze what does not.

A spec is never trusted: random permutations are applied to the state dict, and outputs are
compared in float64 on random inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from merging.errors import SymmetryError
from merging.graph import Graph, trace
from merging.params import Params
from merging.permutation import Permutations, permute, permute_tensor, random_permutations
from merging.records import GroupCertificate, SymmetrySummary
from merging.spec import PermutationSpec
from merging.symmetry.derive import Derivation, derive

# Largest relative difference of outputs that counts as none, in float64 throughout: what the graph
# itself casts to a narrower type is computed in float64 for the certificate.
TOLERANCE = 1e-9
# Joint draws of permutations, and rows of inputs, behind every certificate: a group of two units
# is drawn as the identity half the time, and dead units hide a mistake on single inputs.
_DRAWS = 3
_ROWS = 16


@dataclass(frozen=True)
class Certificate:
    """How well a permuted model agrees with the original.

    Attributes:
        max_relative_difference: Largest difference of outputs, relative to the largest output.
        tolerance: What is allowed.
        groups: Number of permutation groups.
        units: Number of units in all groups.
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

    Groups that do not keep the function (because a rule is wrong for this model) are frozen, and
    the report names the operator at which the difference first appears.

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
    """As `find_symmetry`, with what every tensor of the graph runs over.

    Raises:
        SymmetryError: If the model's output differs between two identical calls, or no spec could
            be certified.
    """
    derivation = derive(model, example_inputs)
    probe = _Probe(model, example_inputs)
    if probe.difference(derivation.spec, seed=0) <= probe.tolerance:
        return derivation
    bad = frozenset(
        group
        for group in derivation.spec.sizes
        if not probe.difference(derivation.spec, seed=0, only=group) <= probe.tolerance
    ) or frozenset(derivation.spec.sizes)
    place = probe.first_difference(derivation, bad)
    spec = derivation.spec.without(bad, f"permuting it changes the function at {place}")
    if not probe.difference(spec, seed=0) <= probe.tolerance:
        raise SymmetryError(
            f"no permutation spec of {type(model).__name__} could be certified: outputs change at "
            f"{place}, even with {len(bad)} groups frozen. Give a hand-written spec"
        )
    return Derivation(spec, derivation.graph, derivation.values)


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
    probe = _Probe(model, example_inputs)
    spec.check(model.state_dict())
    _check_tied(spec, probe.graph)
    difference = probe.difference(spec, seed=seed, permutations=permutations)
    sizes = spec.sizes
    return Certificate(
        difference, probe.tolerance, len(sizes), sum(sizes.values()), share_moved(spec)
    )


def _check_tied(spec: PermutationSpec, graph: Graph) -> None:
    for alias, name in graph.aliases.items():
        if spec.axes.get(alias) != spec.axes.get(name):
            raise SymmetryError(
                f"{alias!r} and {name!r} are one tied tensor, but the permutation spec gives them "
                "different groups; give both the same"
            )


def share_moved(spec: PermutationSpec) -> float:
    """Share of all parameters (buffers included) that sit on an axis with a group."""
    total = moved = 0
    for axes in spec.axes.values():
        count = 1
        for expression in axes:
            count *= expression.size
        total += count
        moved += count if any(expression.groups for expression in axes) else 0
    return moved / total if total else 0.0


def summarise(spec: PermutationSpec, certificate: Certificate, seconds: float) -> SymmetrySummary:
    """What screens show of a certified spec."""
    places, sizes = spec.places(), spec.sizes
    groups = tuple(
        GroupCertificate(group, n, tuple(f"{name}[{axis}]" for name, axis in places[group]))
        for group, n in sizes.items()
    )
    return SymmetrySummary(
        groups,
        spec.report.frozen,
        spec.report.unknown_operators,
        spec.log10_orderings,
        certificate.max_relative_difference,
        certificate.tolerance,
        certificate.ok,
        certificate.share_moved,
        seconds,
    )


class _Probe:
    """A model in float64 with generic parameters, and random inputs to compare outputs on."""

    def __init__(self, model: nn.Module, example_inputs: Sequence[Tensor]) -> None:
        graph = trace(model, example_inputs)
        self.graph: Graph = graph.to(torch.float64)
        self.tolerance = TOLERANCE
        generator = torch.Generator().manual_seed(0)
        self.params = _generic(model.state_dict(), generator)
        for alias, name in graph.aliases.items():
            self.params[alias] = self.params[name]
        rows = _ROWS if graph.batched else 0
        self.inputs = [_fresh(x, generator, rows) for x in example_inputs]
        self.output = self._run(self.params)
        again = self._run(self.params)
        if not torch.equal(self.output.nan_to_num(), again.nan_to_num()):
            raise SymmetryError(
                f"{type(model).__name__} gives different outputs for the same input, so no "
                "permutation can be certified. Remove what is random in evaluation mode"
            )

    def difference(
        self,
        spec: PermutationSpec,
        *,
        seed: int,
        only: str | None = None,
        permutations: Mapping[str, Tensor] | None = None,
    ) -> float:
        """Largest difference of outputs, relative to the largest output; NaN if any is NaN."""
        draws = (
            [permutations]
            if permutations
            else [self._draw(spec, seed + k, only) for k in range(_DRAWS)]
        )
        scale = self.output.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
        differences = []
        for perms in draws:
            moved = permute(spec, perms, self.params)
            differences.append((self._run(moved) - self.output).abs().max() / scale)
        return float(torch.stack(differences).max())

    def first_difference(self, derivation: Derivation, groups: frozenset[str]) -> str:
        """The first operator whose output is not the permuted output of the original."""
        perms = {g: p for g, p in self._draw(derivation.spec, 0, None).items() if g in groups}
        before = self._values(self.params)
        after = self._values(permute(derivation.spec, perms, self.params))
        for node, value in before.items():
            expected = permute_tensor(value, derivation.values.get(node, ()), perms)
            if expected.shape != after[node].shape or not torch.allclose(
                after[node], expected, rtol=1e-6, atol=1e-9 * float(expected.abs().max())
            ):
                return f"{node.target} ({node.name})"
        return "the output"

    def _draw(self, spec: PermutationSpec, seed: int, only: str | None) -> Permutations:
        generator = torch.Generator().manual_seed(seed)
        perms = random_permutations(spec, generator)
        for group, perm in perms.items():
            while torch.equal(perm, torch.arange(len(perm))):
                perm = torch.randperm(len(perm), generator=generator)
            perms[group] = perm
        return perms if only is None else {only: perms[only]}

    def _run(self, params: Mapping[str, Tensor]) -> Tensor:
        with torch.no_grad():
            return self.graph.run(params, self.inputs).to(torch.float64)

    def _values(self, params: Mapping[str, Tensor]) -> dict[fx.Node, Tensor]:
        values: dict[fx.Node, Tensor] = {}

        def keep(node: fx.Node, value: object) -> object:
            if isinstance(value, Tensor) and value.is_floating_point():
                values[node] = value
            return value

        with torch.no_grad():
            self.graph.run(params, self.inputs, visit=keep)
        return values


def _generic(state: Mapping[str, Tensor], generator: torch.Generator) -> Params:
    """The state dict in float64, with constant tensors moved so that no mistake can hide."""
    params: Params = {}
    for name, value in state.items():
        if not value.is_floating_point():
            params[name] = value.detach().cpu()
            continue
        wide = value.detach().to("cpu", torch.float64)
        if wide.numel() > 1 and float(wide.max()) == float(wide.min()):
            noise = torch.rand(wide.shape, generator=generator, dtype=torch.float64)
            wide = wide + 0.5 * noise
        params[name] = wide
    return params


def _fresh(x: Tensor, generator: torch.Generator, rows: int) -> Tensor:
    """Random values in the shape of `x`, with at least so many rows; indices are repeated."""
    if not x.is_floating_point():
        repeats = -(-rows // len(x)) if x.dim() and rows else 1
        return x.cpu().repeat(repeats, *[1] * (x.dim() - 1))[: max(rows, len(x))] if x.dim() else x
    shape = (max(rows, x.shape[0]), *x.shape[1:]) if x.dim() else x.shape
    return torch.randn(shape, generator=generator, dtype=torch.float64)
