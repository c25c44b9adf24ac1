"""Rules of recurrent layers: RNN, LSTM and GRU, layers and cells, as PyTorch exports them.

A layer's hidden units are one index set that sits on both axes of its recurrent matrix: rows are
`gates x units`, columns are units. The gates keep their order; the units of every layer and
direction are a group of their own, and the cell state runs over them as well. With a projection,
what is fed back (and given to the next layer) has units of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import fx

from merging.models.graph.operators import operator_name
from merging.symmetry.rules.call import Axes, OperatorCall, Rows, TensorAxes
from merging.symmetry.rules.expressions import Axis, concat, product

_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
# Tensors whose elements are all equal, and what hands a tensor on as it is.
_EQUAL = ("zeros", "ones", "full", "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones")
_HANDS_ON = ("alias", "clone", "contiguous", "detach", "expand", "to", "lift_fresh_copy")


def recurrent(call: OperatorCall) -> list[TensorAxes]:
    """Follow layers of cells over a sequence `[n, steps, features]`, or `[steps, n, features]`.

    Returns:
        Outputs of the last layer; last hidden state of every layer and direction; for an LSTM
        their last cell state.
    """
    axes, cell = call.axes("input"), call.operator
    batch, steps = (axes[0], axes[1]) if call["batch_first"] else (axes[1], axes[0])
    call.fix(steps, "read in order")
    directions = 2 if call["bidirectional"] else 1
    layers, params = call["num_layers"], [tensor.axes for tensor in call["params"]]
    per = len(params) // (layers * directions)
    inputs = axes[-1]
    fed_back: list[Axes] = []
    cells: list[Axes] = []
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            first = (layer * directions + direction) * per
            units, output = _cell(call, cell, inputs, params[first : first + per])
            cells.append([batch, units])
            outputs.append(output)
        fed_back.extend([batch, output] for output in outputs)
        inputs = concat(outputs)
    given = call["hx"] if isinstance(call["hx"], list) else [call["hx"]]
    for state, wanted, node in zip(given, (fed_back, cells), _states(call), strict=False):
        if not _all_equal(node):
            _same_rows(call, state, wanted)
    states = [Rows(fed_back), Rows(cells)][: len(given)]
    order = [batch, steps] if call["batch_first"] else [steps, batch]
    return [TensorAxes([*order, inputs]), *states]


def cell(call: OperatorCall) -> Axes | list[TensorAxes]:
    """Follow one step of one layer `[n, features]`."""
    names = ("w_ih", "w_hh", "b_ih", "b_hh")
    params = [call.axes(name) for name in names if isinstance(call[name], TensorAxes)]
    axes = call.axes("input")
    units, _ = _cell(call, call.operator.removesuffix("_cell"), axes[-1], params)
    given = call["hx"] if isinstance(call["hx"], list) else [call["hx"]]
    for state in given:
        call.same(state.axes[-1], units)
        for a, b in zip(axes[:-1], state.axes[:-1], strict=True):
            call.same(a, b)
    made = [*axes[:-1], units]
    return [TensorAxes(made), TensorAxes(made)] if len(call.shapes) > 1 else made


def _cell(call: OperatorCall, kind: str, inputs: Axis, params: Sequence[Axes]) -> tuple[Axis, Axis]:
    """Return the units of a cell, and what it gives out: its units, or a projection of them."""
    (rows, own), (recurrent_rows, fed_back), *rest = params
    gates = _GATES[kind]
    units = Axis(rows.size // gates)
    every = product([call.fixed(gates, "order of the gates"), units]) if gates > 1 else units
    call.same(own, inputs)
    for axis in (rows, recurrent_rows, *(axes[0] for axes in rest if len(axes) == 1)):
        call.same(axis, every)
    output = units
    for axes in rest:
        if len(axes) == 2:
            output = axes[0]
            call.same(axes[1], units)
    call.same(fed_back, output)
    return units, output


def _same_rows(call: OperatorCall, given: TensorAxes, wanted: Sequence[Axes]) -> None:
    """Give a state that comes from elsewhere every layer's units, row by row."""
    if isinstance(given, Rows) and given.dim == 0:
        rows = given.rows
    else:
        call.fix(given.axes[0], "one row per layer and direction")
        rows = [given.axes[1:]] * len(wanted)
    for row, axes in zip(rows, wanted, strict=True):
        for a, b in zip(row, axes, strict=True):
            call.same(a, b)


def _states(call: OperatorCall) -> Sequence[fx.Node]:
    """Return the nodes of the initial states."""
    schema = call.node.target._schema.arguments  # type: ignore[union-attr]
    place = next(k for k, argument in enumerate(schema) if argument.name == "hx")
    given = call.node.args[place]
    states = given if isinstance(given, (list, tuple)) else (given,)
    return [state for state in states if isinstance(state, fx.Node)]


def _all_equal(node: fx.Node) -> bool:
    """Return whether a state has equal elements, for certain: made so, and written by nobody.

    Any order of units then leaves it as it is, so it ties no layer's units to another's.
    """
    source = node
    while operator_name(source) in _HANDS_ON and isinstance(source.args[0], fx.Node):
        source = source.args[0]
    return operator_name(source) in _EQUAL and _only_read(source)


def _only_read(node: fx.Node) -> bool:
    return all(
        operator_name(user) in _GATES or (operator_name(user) in _HANDS_ON and _only_read(user))
        for user in node.users
    )


RULES: Mapping[str, object] = {
    **dict.fromkeys(_GATES, recurrent),
    **dict.fromkeys((f"{kind}_cell" for kind in _GATES), cell),
}
