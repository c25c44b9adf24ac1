"""Find the permutation symmetries of a model from its graph.

Every operator of the exported graph has a rule that says which axes are the same index set. An
operator without a rule fixes every axis that it touches, and is named in the report.

Where an index set is nested in another (units of a head in heads, channels of a group in groups),
its order may differ from one position of the other to the next: `nesting` finds these.
"""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from merging.models.graph.export import in_own_type, trace
from merging.models.graph.graph import Graph
from merging.models.graph.memory import is_written
from merging.models.graph.operators import operator_name
from merging.schema.records.symmetry import FrozenAxis
from merging.symmetry.nesting import find_parents
from merging.symmetry.rules import index as rules_index
from merging.symmetry.rules import layers, maps, pointwise, products, ranking, recurrent
from merging.symmetry.rules import shape as rules_shape
from merging.symmetry.rules.call import Axes, OperatorCall, Rows, TensorAxes
from merging.symmetry.rules.expressions import Axis, fix, fixed_axis, normal, uniform_axis
from merging.symmetry.rules.fused import HANDED_ON, handed_on
from merging.symmetry.spec import AxisExpression, PermutationSpec, SymmetryReport

OperatorRule = Callable[[OperatorCall], "Axes | list[TensorAxes]"]

RULES: Mapping[str, OperatorRule] = MappingProxyType(
    cast(
        "dict[str, OperatorRule]",
        {
            **pointwise.RULES,
            **layers.RULES,
            **rules_shape.RULES,
            **recurrent.RULES,
            **maps.RULES,
            **ranking.RULES,
            **products.RULES,
            **rules_index.RULES,
        },
    )
)


@dataclass(frozen=True)
class Derivation:
    """A derived spec, and what every tensor of the graph runs over.

    Attributes:
        spec: The permutation spec (not certified yet).
        graph: The graph that it was derived from.
        values: Node -> one expression per axis, for every tensor that an operator returns.
    """

    spec: PermutationSpec
    graph: Graph
    values: Mapping[fx.Node, tuple[AxisExpression, ...]]


def derive(model: nn.Module, example_inputs: Sequence[Tensor]) -> Derivation:
    """Collect the equations of a model's graph and read the permutation groups off them.

    Args:
        model: Any module that `torch.export` can export.
        example_inputs: Inputs of the right shapes.

    Returns:
        The derivation.

    Raises:
        MergingError: If the model cannot be exported.
    """
    start = time.perf_counter()
    graph = trace(model, example_inputs)
    example_inputs = in_own_type(model, example_inputs)
    params = {name: value.detach() for name, value in model.state_dict().items()}
    axes, unknown = _collect(graph, params, example_inputs)
    names = _names(axes, params)
    written = {
        name: tuple(_write(axis, names) for axis in value) for name, value in axes.state.items()
    }
    frozen = tuple(_frozen(axes.state))
    report = SymmetryReport(frozen, tuple(unknown), time.perf_counter() - start)
    values = {
        node: tuple(_write(axis, names) for axis in value.axes)
        for node, value in axes.values.items()
        if isinstance(value, TensorAxes)
        and not isinstance(value, Rows)
        and node.op == "call_function"
    }
    return Derivation(PermutationSpec(written, report), graph, values)


@dataclass(frozen=True)
class _Equations:
    """Axes of the state dict, of what nodes return, and of what operators compute on the way."""

    state: dict[str, Axes]
    values: dict[fx.Node, Any]
    inner: list[Axes]

    def tensors(self) -> Iterator[Axes]:
        """Go through all tensors.

        Yields:
            The axes of each; of one whose rows have their own, of every row.
        """
        yield from self.state.values()
        yield from self.inner
        for value in self.values.values():
            for item in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(item, Rows):
                    yield from item.rows
                elif isinstance(item, TensorAxes):
                    yield item.axes


def _collect(
    graph: Graph, params: Mapping[str, Tensor], inputs: Sequence[Tensor]
) -> tuple[_Equations, list[str]]:
    """Run the graph once for the shapes, applying the rule of every operator on the way."""
    state = {name: [Axis(size) for size in value.shape] for name, value in params.items()}
    for alias, name in graph.aliases.items():
        state[alias] = state[name]
    values: dict[fx.Node, Any] = {
        node: TensorAxes(state[name]) for node, name in graph.sources.items()
    }
    for node, constant in graph.constants.items():
        values[node] = TensorAxes(_constant_axes(node, constant))
    for node, given in zip(graph.inputs, inputs, strict=True):
        values[node] = TensorAxes([fixed_axis(n, "axis of the input") for n in given.shape])
    unknown: dict[str, None] = {}
    inner: list[Axes] = []

    def visit(node: fx.Node, value: Any) -> Any:
        values[node] = _apply(node, value, values, unknown, inner)
        return value

    with torch.no_grad():
        graph.run(params, inputs, visit=visit)
    _fix_unread(graph, state)
    for value in fx.node.map_arg([graph.output], lambda node: values[node])[0]:
        if isinstance(value, TensorAxes):
            for axis in value.axes:
                fix(axis, "axis of the output")
    return _Equations(state, values, inner), list(unknown)


def _constant_axes(node: fx.Node, constant: Tensor) -> Axes:
    """Return the axes of a constant: one along which all is equal stays as it is in any order."""
    uniform = [
        n > 1 and not is_written(node) and bool((constant == constant.narrow(k, 0, 1)).all())
        for k, n in enumerate(constant.shape)
    ]
    return [
        uniform_axis(n) if equal else fixed_axis(n, "axis of a constant")
        for n, equal in zip(constant.shape, uniform, strict=True)
    ]


def _fix_unread(graph: Graph, state: Mapping[str, Axes]) -> None:
    """Fix what evaluation never reads: it has no say, and no activation to compare."""
    read = {name for node, name in graph.sources.items() if node.users}
    for name, axes in state.items():
        if graph.aliases.get(name, name) not in read:
            for axis in axes:
                fix(axis, "not read in evaluation")


def _apply(
    node: fx.Node,
    value: Any,
    values: Mapping[fx.Node, Any],
    unknown: dict[str, None],
    inner: list[Axes],
) -> Any:
    """Return what a call returns: axes for tensors, the value itself for sizes."""
    shapes = _shapes(value)
    if not shapes:
        return value
    if node.target is operator.getitem:
        source, index = node.args
        assert isinstance(source, fx.Node)
        return values[source][index]
    call = _call(node, shapes, values)
    result = _by_rule(call)
    inner.extend(call.inner)
    if result is None:
        unknown[call.operator] = None
        for tensor in call.tensors():
            for axis in tensor.axes:
                fix(axis, f"no rule for operator {call.operator!r}")
        made = [
            TensorAxes([fixed_axis(n, f"no rule for operator {call.operator!r}") for n in shape])
            for shape in shapes
        ]
        return made[0] if isinstance(value, Tensor) else made
    return result[0] if isinstance(value, Tensor) else result


def _by_rule(call: OperatorCall) -> list[TensorAxes] | None:
    """Return what the operator's rule says of the tensors it returns; None where no rule fits.

    A rule that does not know this form of the call (or gets its shapes wrong) is no rule. What it
    stated before it gave up stays: that only fixes more than is needed.
    """
    rule = RULES.get(call.operator)
    if rule is None:
        return None
    try:
        lift = call.operator in HANDED_ON and any(isinstance(t, Rows) for t in call.tensors())
        found = handed_on(cast("Any", rule), call) if lift else rule(call)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, StopIteration):
        return None
    several = bool(found) and isinstance(found[0], TensorAxes)
    tensors = cast("list[TensorAxes]", found if several else [TensorAxes(cast("Axes", found))])
    fits = [tensor.shape for tensor in tensors] == list(call.shapes)
    return tensors if fits else None


def _call(
    node: fx.Node, shapes: tuple[tuple[int, ...], ...], values: Mapping[fx.Node, Any]
) -> OperatorCall:
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return OperatorCall(
            operator=operator_name(node),
            arguments=_positional(node, values),
            shapes=shapes,
            node=node,
        )
    given = dict(zip((a.name for a in schema.arguments), node.args, strict=False))
    given.update(node.kwargs)
    arguments = {
        a.name: given.get(a.name, a.default_value if a.has_default_value() else None)
        for a in schema.arguments
    }
    filled = {name: _fill(argument, values) for name, argument in arguments.items()}
    return OperatorCall(operator=operator_name(node), arguments=filled, shapes=shapes, node=node)


def _positional(node: fx.Node, values: Mapping[fx.Node, Any]) -> dict[str, Any]:
    return {str(k): _fill(argument, values) for k, argument in enumerate(node.args)}


def _fill(argument: Any, values: Mapping[fx.Node, Any]) -> Any:
    if isinstance(argument, fx.Node):
        return values[argument]
    if isinstance(argument, (list, tuple)):
        return [_fill(item, values) for item in argument]
    return argument


def _shapes(value: Any) -> tuple[tuple[int, ...], ...]:
    if isinstance(value, Tensor):
        return (tuple(value.shape),)
    if isinstance(value, (list, tuple)):
        return tuple(tuple(item.shape) for item in value if isinstance(item, Tensor))
    return ()


@dataclass(frozen=True)
class _Names:
    """Names of atoms by their `id`: groups, index sets that others are nested in, and parents."""

    groups: dict[int, str]
    fixed: dict[int, str]
    within: dict[int, tuple[str, ...]]


def _names(axes: _Equations, params: Mapping[str, Tensor]) -> _Names:
    """Name every atom that may be permuted, or has one nested in it, after its first place."""
    named = _first_places(axes, params)
    parents = find_parents(axes.tensors(), [atom for atom, _ in named.values()])
    groups = {key: place for key, (atom, place) in named.items() if not atom.fixed}
    outer = {id(parent) for found in parents.values() for parent in found}
    fixed = {key: place for key, (atom, place) in named.items() if atom.fixed and key in outer}
    places = groups | fixed
    within = {
        key: tuple(places[id(parent)] for parent in found)
        for key, found in parents.items()
        if key in groups
    }
    return _Names(groups, fixed, within)


def _first_places(axes: _Equations, params: Mapping[str, Tensor]) -> dict[int, tuple[Axis, str]]:
    """Map every atom of the state dict to the first parameter axis it occurs on, with its name."""
    found: dict[int, tuple[Axis, str]] = {}
    for name in params:
        for k, axis in enumerate(axes.state[name]):
            atoms = list(normal(axis).atoms())
            for position, atom in enumerate(atoms):
                if atom.size > 1:
                    place = f"{name}[{k}]"
                    place = place if len(atoms) == 1 else f"{place}.{position}"
                    found.setdefault(id(atom), (atom, place))
    return found


def _write(axis: Axis, names: _Names) -> AxisExpression:
    axis = normal(axis)
    if axis.kind == "atom":
        key = id(axis)
        return AxisExpression(
            axis.size,
            names.groups.get(key),
            within=names.within.get(key, ()),
            fixed=names.fixed.get(key),
        )
    parts = tuple(_write(part, names) for part in axis.parts)
    if all(atom.name is None for part in parts for atom in part.atoms()):
        return AxisExpression(axis.size)
    return AxisExpression(size=axis.size, group=None, kind=axis.kind, parts=parts)


def _frozen(state: Mapping[str, Axes]) -> list[FrozenAxis]:
    return [
        FrozenAxis(parameter=name, axis=k, units=atom.size, reason=atom.fixed)
        for name, axes in state.items()
        for k, axis in enumerate(axes)
        for atom in normal(axis).atoms()
        if atom.fixed and atom.size > 1
    ]
