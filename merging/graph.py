"""A model as a graph of operators that can be run with any parameters.

`trace` exports a model once (`torch.export`); everything that looks inside a model afterwards
reads this graph: its symmetry, its activations, its statistics, and families of its parameters.
The graph runs like the model in evaluation mode.
"""

from __future__ import annotations

import operator
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from inspect import signature
from typing import Any

import torch
from torch import Tensor, fx, nn

from merging.errors import ArchitectureMismatchError, MergingError
from merging.inlining import inline_regions
from merging.writes import memory_of, written_by

Visit = Callable[[fx.Node, Any], Any]

# Checks of sizes that the exporter leaves in the graph; they compute nothing.
_CHECKS = ("_assert_scalar", "_assert_async", "_assert_tensor_metadata", "sym_constrain_range")


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
        """The same graph in another floating type: its constants, and its own casts."""
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
        """Values of all placeholders.

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
        """The steps that are still needed for the output when the values of `known` are given.

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
        """A value that is given to the graph, or a copy of it if the graph writes into it."""
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
    name = str(source.target)
    fresh = name.startswith("aten.") and name.split(".")[1] in _FRESH
    return readers[source] == 1 and (source in owned or (fresh and source in step.frees))


_TRACED: weakref.WeakKeyDictionary[nn.Module, dict[Any, Graph]] = weakref.WeakKeyDictionary()


def trace(model: nn.Module, example_inputs: Sequence[Tensor]) -> Graph:
    """Export a model to a graph of operators.

    The graph is remembered as long as the model lives. It depends on the model's architecture,
    not on its weights; a model whose architecture is changed afterwards is a different model.

    Args:
        model: Any module that `torch.export` can export. It is left as it was.
        example_inputs: Inputs of the right shapes; the first axis is taken for the batch.

    Returns:
        The graph, in evaluation mode.

    Raises:
        MergingError: If the model cannot be exported; the message carries the exporter's reason.
    """
    example_inputs = in_own_type(model, example_inputs)
    shapes = tuple((tuple(x.shape[1:]), x.dtype) for x in example_inputs)
    known = _TRACED.setdefault(model, {})
    if shapes not in known:
        known[shapes] = _export(model, tuple(example_inputs))
    return known[shapes]


def in_own_type(model: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Floating inputs in the type of the model's own parameters."""
    own = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    return [x.to(own) if own is not None and x.is_floating_point() else x for x in inputs]


def _export(model: nn.Module, inputs: tuple[Tensor, ...]) -> Graph:
    # A batch of one would be taken for a constant by the exporter.
    inputs = tuple(torch.cat([x, x]) if x.dim() and x.shape[0] == 1 else x for x in inputs)
    dynamic: Any = tuple({0: torch.export.Dim.AUTO} if x.dim() else None for x in inputs)
    if any(p.kind is p.VAR_POSITIONAL for p in signature(model.forward).parameters.values()):
        dynamic = (dynamic,)
    with (
        _evaluation_mode(model),
        _plain_outputs(model),
        warnings.catch_warnings(),
        torch.no_grad(),
    ):
        warnings.simplefilter("ignore")
        try:
            exported = torch.export.export(model, inputs, dynamic_shapes=dynamic, strict=False)
        except Exception as error:  # the exporter raises many kinds; all mean the same to a caller
            reason = str(error).strip().split("\n")[0].split(". If this type")[0]
            raise MergingError(
                f"{type(model).__name__} cannot be exported to a graph: {reason.rstrip('.')}. "
                f"{_advice(reason, model)}"
            ) from error
    return _from_exported(exported, model)


def _advice(reason: str, model: nn.Module) -> str:
    """What to do about a model that cannot be exported."""
    if "not a known type" in reason:
        return (
            "Have it return tensors, alone or in tuples, lists, dicts or dataclasses; for a "
            "language model that returns its cache, set use_cache to False in its config"
        )
    arguments = ", ".join(signature(model.forward).parameters)
    if any(part in reason for part in ("positional arg", "required arg", "must specify")):
        return f"Give one example input for every argument it needs, in this order: {arguments}"
    return (
        "Models with control flow that depends on values need torch.cond, or a hand-written "
        "permutation spec"
    )


def _from_exported(exported: torch.export.ExportedProgram, model: nn.Module) -> Graph:
    roles = exported.graph_signature
    names = {**roles.inputs_to_parameters, **roles.inputs_to_buffers}
    state = set(model.state_dict())
    sources: dict[fx.Node, str] = {}
    constants: dict[fx.Node, Tensor] = {}
    inputs: list[fx.Node] = []
    calls: list[Step] = []
    output: Any = None
    aliases = _aliases(model)
    inline_regions(exported.graph_module)
    for node in exported.graph_module.graph.nodes:
        if node.op == "placeholder":
            name = names.get(node.name)
            if name in state:
                sources[node] = aliases.get(name, name)
            elif node.name in roles.user_inputs:
                inputs.append(node)
            else:
                constants[node] = _constant(exported, name or node.name, node.name)
        elif node.op == "get_attr":
            users = ", ".join(sorted({str(user.target) for user in node.users}))
            raise MergingError(
                f"{type(model).__name__}'s graph holds another graph, which {users} chooses or "
                "repeats by values; nothing is known of such operators here. Export the model "
                "without it, or give a hand-written permutation spec and weight matching"
            )
        elif node.op == "call_function" and not _is_check(node):
            calls.append(Step(node, (), node.target, node.args, node.kwargs))
        elif node.op == "output":
            output = node.args[0]
    sizes = [node.meta["val"].shape[:1] for node in inputs]
    batched = all(not size or _is_free(size[0]) for size in sizes)
    steps = _with_frees(calls, output)
    return Graph(steps, sources, constants, tuple(inputs), output, aliases, batched)


def _is_free(size: Any) -> bool:
    """Whether the exporter left a size open; a symbol may still stand for one number."""
    return isinstance(size, torch.SymInt) and not size.node.expr.is_number


def _constant(exported: torch.export.ExportedProgram, name: str, node_name: str) -> Tensor:
    lifted = exported.graph_signature.inputs_to_lifted_tensor_constants
    value = exported.constants.get(lifted.get(node_name, name))
    if value is None:
        value = exported.state_dict.get(name)
    if not isinstance(value, Tensor):
        raise MergingError(f"the model reads {name!r}, which is neither a tensor nor an input")
    return value.detach()


def _aliases(model: nn.Module) -> dict[str, str]:
    """Names that share storage with an earlier name of the state dict (tied weights)."""
    seen: dict[tuple[int, int, tuple[int, ...]], str] = {}
    aliases: dict[str, str] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if value.numel() == 0 or value.is_meta:
            continue
        key = (value.data_ptr(), value.storage_offset(), tuple(value.shape))
        if key in seen:
            aliases[name] = seen[key]
        else:
            seen[key] = name
    return aliases


def _is_check(node: fx.Node) -> bool:
    return any(check in str(node.target) for check in _CHECKS) or node.target in (
        operator.le,
        operator.ge,
        operator.eq,
    )


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
    """Whether a call makes a tensor of the default floating type, because it names none."""
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
    raise MergingError("the model returns no tensor")


@contextmanager
def _plain_outputs(model: nn.Module) -> Iterator[None]:
    """Let a model return its dataclasses as dicts, which the exporter knows."""
    handle = model.register_forward_hook(lambda _model, _inputs, output: _plain(output))
    try:
        yield
    finally:
        handle.remove()


def _plain(output: Any) -> Any:
    if is_dataclass(output) and not isinstance(output, (type, Mapping)):
        return {field.name: _plain(getattr(output, field.name)) for field in fields(output)}
    return output


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
