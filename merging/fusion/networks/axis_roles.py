"""Which tensors make the units of a group, and which read them.

A permutation moves both alike. Where units are averaged, they part: what makes a unit is averaged
like the unit (`M`), and what reads it adds up over all units that went into it (`U`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from torch import fx

from merging.models.graph.operators import operator_name
from merging.schema.errors import MergingError
from merging.symmetry import Derivation
from merging.symmetry.permutation import identity_permutations
from merging.symmetry.spec import AxisExpression, PermutationSpec

Role = Literal["makes", "reads"]

# Per operator: which axis of its weight (argument 1) is read; the others are made.
_WEIGHTS = {
    **dict.fromkeys(("linear", "conv1d", "conv2d", "conv3d"), 1),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), 0),
    **dict.fromkeys(("matmul", "mm"), 0),
}
# Operators that act on every unit by itself, or on all of one example (norms), with their tensors.
_UNITWISE = (
    "batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "prelu", "add", "sub",
    "mul", "expand", "embedding",
)  # fmt: skip
# Operators that multiply units with units: two units in one are not what they were.
_PRODUCTS = ("matmul", "bmm", "mm", "baddbmm", "scaled_dot_product_attention")


def find_roles(derivation: Derivation, spec: PermutationSpec) -> dict[str, tuple[Role | None, ...]]:
    """Find out, for every tensor that carries groups, what its axes have to do with the units.

    Args:
        derivation: The model's graph, and what its values run over.
        spec: The permutation spec.

    Returns:
        Per tensor one role per axis, None where the axis carries no group.

    Raises:
        MergingError: If a group is not plain: its units are multiplied with one another
            (attention), or it shares an axis with another group (heads, GroupNorm), or an operator
            uses its tensors in a way that is not known here. The group and the tensor are named.
    """
    _refuse_nested(spec)
    _refuse_products(derivation, spec)
    users: dict[str, list[tuple[fx.Node, fx.Node]]] = {}
    for step in derivation.graph.steps:
        for node in step.node.all_input_nodes:
            if node in derivation.graph.sources:
                users.setdefault(derivation.graph.sources[node], []).append((node, step.node))
    roles: dict[str, tuple[Role | None, ...]] = {}
    for name, expressions in spec.axes.items():
        groups = list(dict.fromkeys(g for e in expressions for g in e.groups))
        if not groups:
            continue
        found = {_roles_at(node, user, expressions, name) for node, user in users.get(name, [])}
        if len(found) > 1:
            raise MergingError(
                _refusal(groups[0], name, "two layers share it, and use it in two ways")
            )
        roles[name] = found.pop() if found else _all_made(expressions)
        _check_axes(name, expressions, roles[name])
    return roles


def _roles_at(
    node: fx.Node, user: fx.Node, expressions: tuple[AxisExpression, ...], name: str
) -> tuple[Role | None, ...]:
    """Return what the axes of a tensor are to one operator that uses it.

    Raises:
        MergingError: If that is not known.
    """
    operator = operator_name(user)
    if operator in _WEIGHTS and len(user.args) > 1 and user.args[1] is node:
        group_count = user.args[6] if operator.startswith("conv") and len(user.args) > 6 else 1
        if group_count != 1:
            raise MergingError(_refusal(_first(expressions), name, "it is a convolution in groups"))
        read = _WEIGHTS[operator]
        return tuple(
            ("reads" if axis == read else "makes") if e.groups else None
            for axis, e in enumerate(expressions)
        )
    bias = operator in _WEIGHTS and len(user.args) > 2 and user.args[2] is node
    if bias or operator in _UNITWISE:
        return _all_made(expressions)
    raise MergingError(
        _refusal(_first(expressions), name, f"{operator} is not a layer that is known here")
    )


def _all_made(expressions: tuple[AxisExpression, ...]) -> tuple[Role | None, ...]:
    return tuple("makes" if e.groups else None for e in expressions)


def _check_axes(
    name: str, expressions: tuple[AxisExpression, ...], roles: tuple[Role | None, ...]
) -> None:
    """Make sure that every piece of an axis runs over one group.

    Raises:
        MergingError: If it does not.
    """
    for expression, role in zip(expressions, roles, strict=True):
        for factors in _factors(expression):
            if len(factors) > 1:
                raise MergingError(
                    _refusal(factors[0], name, f"it shares an axis with {factors[1]!r}")
                )
            if not factors and role == "makes":
                raise MergingError(
                    _refusal(_first(expressions), name, "only a part of an axis belongs to it")
                )


def _factors(expression: AxisExpression) -> Iterator[list[str]]:
    """Go through the pieces of an axis.

    Yields:
        The groups of every piece.
    """
    if expression.kind == "concat":
        for part in expression.parts:
            yield from _factors(part)
    else:
        yield [atom.group for atom in expression.atoms() if atom.group is not None]


def _refuse_nested(spec: PermutationSpec) -> None:
    """Make sure that no group has an order of its own for every unit of another.

    Raises:
        MergingError: If one has.
    """
    for group, perm in identity_permutations(spec).items():
        if perm.dim() > 1:
            name = spec.places()[group][0][0]
            raise MergingError(_refusal(group, name, "it is nested in another group"))


def _refuse_products(derivation: Derivation, spec: PermutationSpec) -> None:
    """Make sure that no two values with units are multiplied as matrices.

    Raises:
        MergingError: If they are.
    """
    known = set(spec.sizes)
    places: Mapping[frozenset[tuple[str, int]], str] = {
        frozenset(found): group for group, found in spec.places().items()
    }
    derived = derivation.spec.places()
    for step in derivation.graph.steps:
        if operator_name(step.node) not in _PRODUCTS:
            continue
        values = [n for n in step.node.all_input_nodes if n not in derivation.graph.sources]
        if len(values) < 2:
            continue
        for group in (g for n in values for e in derivation.values.get(n, ()) for g in e.groups):
            own = group if group in known else places.get(frozenset(derived[group]))
            if own is not None:
                raise MergingError(
                    _refusal(own, derived[group][0][0], "its units are multiplied with others")
                )


def _first(expressions: tuple[AxisExpression, ...]) -> str:
    return next(group for e in expressions for group in e.groups)


def _refusal(group: str, name: str, why: str) -> str:
    return (
        f"units of the group {group!r} cannot be averaged ({name!r}: {why}). Freeze it in the "
        "permutation spec (`spec.without`), or align the models and take their mean"
    )
