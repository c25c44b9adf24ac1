"""A model as a graph of operators that can be run with any parameters.

`trace` exports a model once (`torch.export`); everything that looks inside a model afterwards
reads this graph: its symmetry, its activations, its statistics, and families of its parameters.
The graph runs like the model in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx

from merging.models.graph.memory import memory_of, written_by
from merging.models.graph.operators import operator_name
from merging.schema.errors import ArchitectureMismatchError, MergingError

Visit = Callable[[fx.Node, Any], Any]


@dataclass(frozen=True)
class Step:
    """One operator call.

    Attributes:
        node: Where in the graph it is.
        frees: Values that nobody reads after it.
        call: What is called.
        args: Positional arguments; nodes stand for their values.
        kwargs: Arguments by name.
    """

    node: fx.Node
    frees: tuple[fx.Node, ...]
    call: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Graph:
    """An exported model.

    Attributes:
        steps: The operator calls, in order.
        sources: Placeholder of a parameter or buffer -> its name in the state dict.
        constants: Placeholder of a constant -> its value (not part of the state dict).
        inputs: Placeholders of the model's inputs.
        output: What the model returns: a node, or a structure that holds nodes.
        aliases: State-dict names that share one tensor with another name -> that name.
        batched: Whether the first axis of every input may have any length.
    """

    steps: tuple[Step, ...]
    sources: Mapping[fx.Node, str]
    constants: Mapping[fx.Node, Tensor]
    inputs: tuple[fx.Node, ...]
    output: Any
    aliases: Mapping[str, str]
    batched: bool

    def to(self, dtype: torch.dtype) -> Graph:
        """Return the same graph in another floating type: its constants, and its own casts."""
        constants = {
            node: value.to(dtype) if value.is_floating_point() else value
            for node, value in self.constants.items()
        }
        steps = tuple(
            replace(
                step,
                args=tuple(_cast(argument, dtype) for argument in step.args),
                kwargs={
                    **{name: _cast(value, dtype) for name, value in step.kwargs.items()},
                    **({"dtype": dtype} if _makes_floats(step.node) else {}),
                },
            )
            for step in self.steps
        )
        return replace(self, constants=constants, steps=steps)

    def run(
        self,
        params: Mapping[str, Tensor],
        inputs: Sequence[Tensor],
        *,
        visit: Visit | None = None,
    ) -> Tensor:
        """Run the model.

        Args:
            params: State dict to run it with.
            inputs: The model's inputs.
            visit: Called with every node and its value; what it returns is used instead.

        Returns:
            The model's output (its first tensor, where there are several).

        Raises:
            ArchitectureMismatchError: If `params` lacks a name that the graph reads.
        """
        values = self.bind(params, inputs)
        return self.finish(self.steps, values, visit=visit)

    def finish(
        self, program: tuple[Step, ...], values: dict[fx.Node, Any], *, visit: Visit | None = None
    ) -> Tensor:
        """Run the steps that `remaining` gives, from values that are known, to the output.

        Args:
            program: Steps in order.
            values: Known values, by node; the dict is used up.
            visit: As in `run`.

        Returns:
            The model's output.
        """
        execute(program, values, visit)
        return _first_tensor(_fill(self.output, values))

    def bind(self, params: Mapping[str, Tensor], inputs: Sequence[Tensor]) -> dict[fx.Node, Any]:
        """Return the values of all placeholders.

        Raises:
            ArchitectureMismatchError: If `params` lacks a name that the graph reads.
        """
        values: dict[fx.Node, Any] = {n: self.own(n, v) for n, v in self.constants.items()}
        for node, name in self.sources.items():
            if name not in params:
                raise ArchitectureMismatchError(
                    f"the parameters have no {name!r}, which the model reads; "
                    f"they have {len(params)} tensors. Give a state dict of this model"
                )
            values[node] = self.own(node, params[name])
        given = zip(self.inputs, inputs, strict=True)
        values.update((node, self.own(node, value)) for node, value in given)
        return values

    def remaining(self, known: frozenset[fx.Node]) -> tuple[Step, ...]:
        """Return the steps that the output still needs when the values of `known` are given.

        What writes into memory that is read afterwards is needed too, unless it is known itself.
        """
        read: set[fx.Node] = set(_nodes(self.output))
        memory = {self.memory[node] for node in read}
        kept: list[Step] = []
        for step in reversed(self.steps):
            writes = {self.memory[node] for node in written_by(step.node)}
            if step.node not in known and (step.node in read or writes & memory):
                kept.append(step)
                read.update(step.node.all_input_nodes)
                memory.update(self.memory[node] for node in step.node.all_input_nodes)
        return _with_frees(kept[::-1], self.output)

    @cached_property
    def memory(self) -> Mapping[fx.Node, fx.Node]:
        """For every node the first one whose memory it may be."""
        given = (*self.sources, *self.constants, *self.inputs)
        return memory_of([*given, *(step.node for step in self.steps)])

    @cached_property
    def written(self) -> frozenset[fx.Node]:
        """The first nodes of all memory that some step writes into."""
        return frozenset(self.memory[node] for step in self.steps for node in written_by(step.node))

    def own(self, node: fx.Node, value: Any) -> Any:
        """Return a value that is given to the graph; a copy of it if the graph writes into it."""
        return value.clone() if node in self.written else value


def execute(
    program: Sequence[Step], values: dict[fx.Node, Any], visit: Visit | None = None
) -> None:
    """Carry out steps; `values` gains what they compute and loses what nobody reads any more."""
    for step in program:
        kwargs = {key: _fill(value, values) for key, value in step.kwargs.items()}
        value = step.call(*[_fill(argument, values) for argument in step.args], **kwargs)
        values[step.node] = value if visit is None else visit(step.node, value)
        for freed in step.frees:
            del values[freed]


# Operators whose result is a fresh tensor that no other value shares memory with.
_FRESH = ("linear", "conv1d", "conv2d", "conv3d", "add", "mul", "batch_norm", "matmul", "addmm")


def in_place(program: Sequence[Step], owned: frozenset[fx.Node]) -> tuple[Step, ...]:
    """Let every ReLU overwrite its input where nobody else reads that.

    Not for programs whose values are looked at afterwards.

    Args:
        program: Steps in order.
        owned: Nodes whose given values may be overwritten.

    Returns:
        The same steps, with that noted.
    """
    readers: dict[fx.Node, int] = {}
    for step in program:
        for node in step.node.all_input_nodes:
            readers[node] = readers.get(node, 0) + 1
    return tuple(
        replace(step, call=torch.ops.aten.relu_.default)
        if _may_overwrite(step, readers, owned)
        else step
        for step in program
    )


def _may_overwrite(step: Step, readers: Mapping[fx.Node, int], owned: frozenset[fx.Node]) -> bool:
    if step.node.target is not torch.ops.aten.relu.default:
        return False
    (source,) = step.node.all_input_nodes
    fresh = operator_name(source) in _FRESH and not any(written_by(source))
    return readers[source] == 1 and (source in owned or (fresh and source in step.frees))


def _with_frees(steps: Sequence[Step], output: Any) -> tuple[Step, ...]:
    """Note after which step every intermediate value can be forgotten."""
    kept, noted = set(_nodes(output)), []
    computed = {step.node for step in steps}
    for step in reversed(steps):
        node = step.node
        last = [used for used in node.all_input_nodes if used in computed and used not in kept]
        kept.update(last)
        if node not in kept:
            last.append(node)
        noted.append(replace(step, frees=tuple(last)))
    return tuple(reversed(noted))


def _makes_floats(node: fx.Node) -> bool:
    """Return whether a call makes a tensor of the default floating type, because it names none."""
    value = node.meta.get("val")
    schema = getattr(node.target, "_schema", None)
    return (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and schema is not None
        and not any(isinstance(used.meta.get("val"), Tensor) for used in node.all_input_nodes)
        and any(argument.name == "dtype" for argument in schema.arguments)
        and node.kwargs.get("dtype") is None
    )


def _cast(argument: Any, dtype: torch.dtype) -> Any:
    is_floating = isinstance(argument, torch.dtype) and argument.is_floating_point
    return dtype if is_floating else argument


def _fill(argument: Any, values: Mapping[fx.Node, Any]) -> Any:
    kind = type(argument)
    if kind is fx.Node:
        return values[argument]
    if isinstance(argument, (list, tuple)):
        return [_fill(item, values) for item in argument]
    if isinstance(argument, dict):
        return {key: _fill(item, values) for key, item in argument.items()}
    return argument


def _nodes(argument: Any) -> Iterator[fx.Node]:
    if isinstance(argument, fx.Node):
        yield argument
    elif isinstance(argument, (list, tuple)):
        for item in argument:
            yield from _nodes(item)
    elif isinstance(argument, dict):
        yield from _nodes(list(argument.values()))


def _first_tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, Tensor):
            return item
    raise MergingError("the model returns no tensor; have it return one")
