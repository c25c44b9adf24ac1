"""Regions of an exported graph, such as `with torch.no_grad()`, put back among its operators.

The exporter makes a graph of its own out of the body of such a block. Neither gradients nor
autocast change what is computed here: everything is evaluated, in the type of the parameters.
"""

from __future__ import annotations

import operator
from typing import Any, cast

from torch import fx

from merging.models.graph.operators import operator_name

REGIONS = ("wrap_with_set_grad_enabled", "wrap_with_autocast")


def inline_regions(module: fx.GraphModule) -> None:
    """Replace every region of a graph by the operators in it.

    Args:
        module: The graph; it is changed.
    """
    for node in list(module.graph.nodes):
        if operator_name(node) in REGIONS:
            _inline(module, node)


def _inline(module: fx.GraphModule, node: fx.Node) -> None:
    place = next(
        k
        for k, value in enumerate(node.args)
        if isinstance(value, fx.Node) and value.op == "get_attr"
    )
    region = cast("fx.Node", node.args[place])
    body = module.get_submodule(str(region.target))
    assert isinstance(body, fx.GraphModule)
    inline_regions(body)
    inputs = [inner for inner in body.graph.nodes if inner.op == "placeholder"]
    values: dict[fx.Node, Any] = dict(zip(inputs, node.args[place + 1 :], strict=True))
    with module.graph.inserting_before(node):
        found = module.graph.graph_copy(body.graph, values)
    for user in list(node.users):
        assert user.target is operator.getitem
        user.replace_all_uses_with(cast("Any", found)[cast("int", user.args[1])])
        module.graph.erase_node(user)
    module.graph.erase_node(node)
    if not region.users:
        module.graph.erase_node(region)
