"""Operators of a graph that write into memory which other nodes read (`relu_`, `x[:, 0] = 0`).

Nobody needs to read what such an operator returns, and it counts all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import fx

from merging.models.graph.operators import operator_name

# These may return their input itself, which their schemas do not say; of dropout in evaluation.
_SAME = ("dropout", "feature_dropout", "alpha_dropout", "type_as")


def memory_of(nodes: Iterable[fx.Node]) -> dict[fx.Node, fx.Node]:
    """Map every node to the one whose memory it may be: its own, or that of what it is a view of.

    Args:
        nodes: The nodes of a graph, in order.

    Returns:
        Node -> the first node with that memory.
    """
    found: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        source = _viewed(node)
        found[node] = node if source is None else found.get(source, source)
    return found


def written_by(node: fx.Node) -> Iterator[fx.Node]:
    """Go through what an operator writes into.

    Yields:
        Its arguments that are changed; their memory may be that of others.
    """
    for argument, value in _arguments(node):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from (item for item in _listed(value) if isinstance(item, fx.Node))


def is_written(node: fx.Node) -> bool:
    """Return whether an operator writes into what a node returns, or into a view of it."""
    return any(
        node in written_by(user) or (_viewed(user) is node and is_written(user))
        for user in node.users
    )


def _viewed(node: fx.Node) -> fx.Node | None:
    if node.op != "call_function":
        return None
    schema = getattr(node.target, "_schema", None)
    if schema is None:  # `getitem`
        return next(iter(node.all_input_nodes), None)
    shares = any(value.alias_info is not None for value in schema.returns)
    for argument, value in _arguments(node):
        if isinstance(value, fx.Node) and (
            operator_name(node) in _SAME or (shares and argument.alias_info is not None)
        ):
            return value
    return None


def _arguments(node: fx.Node) -> Iterator[tuple[Any, Any]]:
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return
    given: Mapping[str, Any] = {
        **dict(zip((a.name for a in schema.arguments), node.args, strict=False)),
        **node.kwargs,
    }
    for argument in schema.arguments:
        if argument.name in given:
            yield argument, given[argument.name]


def _listed(value: Any) -> Iterable[Any]:
    return value if isinstance(value, (list, tuple)) else (value,)
