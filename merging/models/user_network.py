"""A network that a function of the user's own makes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from merging.files.user_function import OWN_MODEL, call_named, call_own
from merging.models.network import Network
from merging.schema.errors import MergingError


def own_network(function: str) -> Network:
    """Return the model that a function of the server's own makes.

    Args:
        function: `package.module:function`, as `$ONE_BASIN_MODEL` names it.

    Returns:
        The network.

    Raises:
        MergingError: If it is another one, or returns no model.
    """
    return _returned(call_own(function, OWN_MODEL), function)


def named_network(function: str) -> Network:
    """Return the model that a function makes; only for callers who may run any code anyway.

    Args:
        function: `package.module:function`.

    Returns:
        What the function returns: a module and its example inputs.

    Raises:
        MergingError: If it cannot be imported, or returns something else.
    """
    return _returned(call_named(function, "--model"), function)


def _returned(found: Any, function: str) -> Network:
    model, *inputs = found if isinstance(found, (tuple, list)) else (found,)
    if len(inputs) == 1 and isinstance(inputs[0], (tuple, list)):
        inputs = list(inputs[0])
    if not isinstance(model, nn.Module) or not inputs or not all(map(torch.is_tensor, inputs)):
        raise MergingError(
            f"{function} returned {type(found).__name__}; it has to return the model and its "
            "example inputs: `return model, (torch.zeros(2, 3, 224, 224),)`"
        )
    return Network(model.eval(), tuple(inputs), f"{type(model).__name__} of {function}")
