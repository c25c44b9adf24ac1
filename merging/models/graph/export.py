"""Export a model to a graph of operators with `torch.export`."""

from __future__ import annotations

import operator
import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor, fx, nn

from merging.models.graph.graph import Graph, Step, _with_frees
from merging.models.graph.inline import inline_regions
from merging.schema.errors import MergingError

# Checks of sizes that the exporter leaves in the graph; they compute nothing.
_CHECKS = ("_assert_scalar", "_assert_async", "_assert_tensor_metadata", "sym_constrain_range")


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
    """Return floating inputs in the type of the model's own parameters."""
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
    """Say what to do about a model that cannot be exported."""
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
            calls.append(
                Step(node=node, frees=(), call=node.target, args=node.args, kwargs=node.kwargs)
            )
        elif node.op == "output":
            output = node.args[0]
    sizes = [node.meta["val"].shape[:1] for node in inputs]
    batched = all(not size or _is_free(size[0]) for size in sizes)
    steps = _with_frees(calls, output)
    return Graph(
        steps=steps,
        sources=sources,
        constants=constants,
        inputs=tuple(inputs),
        output=output,
        aliases=aliases,
        batched=batched,
    )


def _is_free(size: Any) -> bool:
    """Return whether the exporter left a size open; a symbol may still stand for one number."""
    return isinstance(size, torch.SymInt) and not size.node.expr.is_number


def _constant(exported: torch.export.ExportedProgram, name: str, node_name: str) -> Tensor:
    lifted = exported.graph_signature.inputs_to_lifted_tensor_constants
    value = exported.constants.get(lifted.get(node_name, name))
    if value is None:
        value = exported.state_dict.get(name)
    if not isinstance(value, Tensor):
        raise MergingError(
            f"the model reads {name!r}, which is neither a tensor nor an input; make it a buffer"
        )
    return value.detach()


def _aliases(model: nn.Module) -> dict[str, str]:
    """Return the names that share storage with an earlier name of the state dict (tied weights)."""
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
