"""Permutation specs that a person wrote or changed: proven like derived ones, refused by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from merging.schema.errors import SymmetryError
from merging.schema.records.symmetry import FrozenAxis
from merging.symmetry.certificate import TOLERANCE, certify
from merging.symmetry.probe import Probe
from merging.symmetry.spec import PermutationSpec

_SHOWN = 4
_MAX_TEXT = 5_000_000


def read_spec(text: str, params: Mapping[str, Tensor]) -> PermutationSpec:
    """Read a spec, its parameters in the order of the model.

    Args:
        text: JSON in the form `{parameter: [group or null per axis]}`.
        params: State dict of the model.

    Returns:
        The spec; not certified yet.

    Raises:
        SymmetryError: If the text is no such JSON, or does not fit the model.
    """
    if len(text) > _MAX_TEXT:
        raise SymmetryError(
            f"the spec has {len(text):,} characters; at most {_MAX_TEXT:,} are read"
        )
    try:
        spec = PermutationSpec.from_json(text, params)
    except (RecursionError, OverflowError) as error:
        raise SymmetryError(
            f"the spec is not of the form {{parameter: [group or null per axis]}}: {error}"
        ) from error
    return PermutationSpec({name: spec.axes[name] for name in params}, spec.report)


def frozen(spec: PermutationSpec, groups: Sequence[str]) -> PermutationSpec:
    """Return the spec without some groups.

    Raises:
        SymmetryError: If it has no such group.
    """
    unknown = [group for group in groups if group not in spec.sizes]
    if unknown:
        raise SymmetryError(
            f"there is no permutation group {unknown[0]!r} to freeze; the groups are "
            f"{', '.join(spec.sizes) or 'none'}"
        )
    return spec.without(frozenset(groups), "frozen by hand")


def check_by_hand(
    model: nn.Module, spec: PermutationSpec, example_inputs: Sequence[Tensor]
) -> None:
    """Make sure that a spec leaves the function alone; say which group does not.

    Args:
        model: The model.
        spec: The spec.
        example_inputs: Inputs of the right shapes.

    Raises:
        SymmetryError: If the spec does not fit the model, or a group changes the function: the
            message names the groups, where they stand, and by how much outputs change.
    """
    certificate = certify(model, spec, example_inputs)
    if certificate.ok:
        return
    probe = Probe(model, example_inputs)
    changes = {group: probe.difference(spec, seed=0, only=group) for group in spec.sizes}
    bad = [group for group, change in changes.items() if not change <= TOLERANCE]
    if not bad:
        raise SymmetryError(
            "the permutation spec changes the function of the model when its groups move together, "
            f"by {certificate.max_relative_difference:.0e} of the outputs; no group does alone. "
            "Two groups stand for units that belong together: give them one name"
        )
    places = spec.places()
    lines = []
    for group in bad[:_SHOWN]:
        where = ", ".join(f"{name}[{axis}]" for name, axis in places[group][:_SHOWN])
        more = ", …" if len(places[group]) > _SHOWN else ""
        lines.append(f"{group!r} on {where}{more} changes them by {changes[group]:.0e}")
    rest = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    raise SymmetryError(
        "the permutation spec changes the outputs of the model (relative to the largest; allowed: "
        f"{TOLERANCE:.0e}): group {'; group '.join(lines)}{rest}. Name every axis that the units "
        "of a group stand on, or freeze the group"
    )


def with_reasons(spec: PermutationSpec, derived: PermutationSpec) -> PermutationSpec:
    """Return a spec with the reasons why axes are fixed: derived ones, and the person's choice.

    Args:
        spec: The spec that was chosen.
        derived: The spec that was found.

    Returns:
        The chosen spec with a report.
    """
    kept = {place for places in spec.places().values() for place in places}
    chosen = tuple(
        FrozenAxis(
            parameter=name, axis=axis, units=derived.axes[name][axis].size, reason="frozen by hand"
        )
        for places in derived.places().values()
        for name, axis in places
        if (name, axis) not in kept
    )
    report = replace(derived.report, frozen=tuple(dict.fromkeys(derived.report.frozen + chosen)))
    return PermutationSpec(spec.axes, report)
