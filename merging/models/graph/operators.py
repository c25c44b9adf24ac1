"""What the nodes of a graph call."""

from __future__ import annotations

from torch import fx


def operator_name(node: fx.Node) -> str:
    """Return the name of the operator that a node calls, whatever its overload.

    That it writes in place is not part of it: `memory.written_by` says so.

    Args:
        node: A node of a graph.

    Returns:
        Such as `"relu"` of `aten.relu_.default`, or `"getitem"` of a Python function; empty for
        nodes that call none, such as parameters.

    Example:
        >>> import torch
        >>> x = fx.Graph().placeholder("x")
        >>> operator_name(x), operator_name(x.graph.call_function(torch.ops.aten.relu_.default))
        ('', 'relu')
    """
    if node.op != "call_function":
        return ""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return str(getattr(node.target, "__name__", node.target))
    name = str(schema.name).split("::")[-1]
    return name if name.startswith("__") else name.rstrip("_")
