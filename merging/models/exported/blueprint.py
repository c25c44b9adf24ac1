"""An architecture as data: the graph of a `.pt2` archive, checked and rebuilt as a module.

`torch.export.save` describes a model as a list of operator calls. Only calls of PyTorch's own
public operators on tensors and numbers are taken over, and nothing of the archive is evaluated as
code: no names, no expressions, no pickles. What cannot be taken over is named in the error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from merging.models.exported.flatten import flat_calls
from merging.models.exported.foreseen import foresee
from merging.models.exported.plan import DAMAGES, Plan
from merging.models.exported.running_calls import Program, Watch
from merging.schema.errors import CheckpointError, MergingError
from merging.schema.how_to_export import HOW_TO_EXPORT

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class ExportedModel(nn.Module):
    """A model rebuilt from a blueprint; its state dict has the names of the original.

    Args:
        text: JSON of `blueprint_text`.
        weights: The tensors of its state dict; for their shapes, they may be anything.
        constants: Tensors that the graph reads and the state dict does not hold.
        name: What to call the file in messages.

    Raises:
        CheckpointError: If the blueprint asks for anything but tensor operators.
    """

    def __init__(
        self, text: str, weights: Mapping[str, Tensor], constants: Mapping[str, Tensor], name: str
    ) -> None:
        super().__init__()
        plan = Plan(text, name)
        self.inputs, self._program = plan.inputs, Program(plan.calls, plan.outputs)
        self._reads: list[tuple[str, str]] = []
        self._constants: list[tuple[str, Tensor]] = []
        for key, value in weights.items():
            _place(self, key, value, name)
        for ref, key in plan.weights.items():
            if key not in weights:
                raise CheckpointError(f"{name}: its graph reads {key!r}, which has no tensor")
            self._reads.append((ref, key))
        for ref, key in plan.constants.items():
            if key not in constants:
                raise CheckpointError(f"{name}: its graph reads {key!r}, which has no tensor")
            self._constants.append((ref, constants[key]))

    @property
    def example_inputs(self) -> tuple[Tensor, ...]:
        """Inputs of the right shapes: random where floating, zero elsewhere."""
        generator = torch.Generator().manual_seed(0)
        return tuple(
            torch.randn(i.shape, generator=generator).to(i.dtype)
            if i.dtype.is_floating_point
            else torch.zeros(i.shape, dtype=i.dtype)
            for i in self.inputs
        )

    def forward(self, *inputs: Tensor) -> Any:
        """Return the output that the archive's graph computes; it gets copies to write into.

        Raises:
            MergingError: If the graph cannot be computed on these inputs.
        """
        return self._run(inputs)

    def foresee(self, name: str) -> None:
        """Make sure that what the graph computes has room, before any of it is computed.

        Args:
            name: What to call the file in messages.

        Raises:
            CheckpointError: If it has not.
        """
        foresee(self._run, self.inputs, name)

    def _run(
        self,
        inputs: Sequence[Tensor],
        given: Callable[[Tensor], Tensor] = lambda x: x,
        watch: Watch | None = None,
    ) -> Any:
        if len(inputs) != len(self.inputs):
            raise MergingError(f"the model takes {len(self.inputs)} inputs, not {len(inputs)}")
        values: dict[str, Any] = {
            i.name: value for i, value in zip(self.inputs, inputs, strict=True)
        }
        state: dict[str, Tensor] = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        values.update((ref, given(state[key])) for ref, key in self._reads)
        values.update((ref, given(value)) for ref, value in self._constants)
        outputs = self._program.run(values, watch)
        return outputs[0] if len(outputs) == 1 else outputs


def blueprint_text(description: Mapping[str, Any], name: str) -> str:
    """Return the canonical JSON of what a `.pt2` archive says of its graph, and of nothing else.

    Notes of the one who exported it (stack traces, paths, versions) are left out, so that two
    exports of one architecture are equal.

    Args:
        description: The archive's `models/*.json`, parsed.
        name: What to call the file in messages.

    Returns:
        The text that `ExportedModel` reads.

    Raises:
        CheckpointError: If the description is not of the expected form.
    """
    try:
        module = description["graph_module"]
        graph, signature = module["graph"], module["signature"]
        nodes, outputs = flat_calls(graph["nodes"], signature["output_specs"])
        given = [
            spec["user_input"]["arg"] for spec in signature["input_specs"] if "user_input" in spec
        ]
        names = [arg["as_tensor"]["name"] for arg in given if "as_tensor" in arg]
        values = {key: _input_value(graph["tensor_values"][key]) for key in names}
        kept = {
            "nodes": nodes,
            "inputs": signature["input_specs"],
            "outputs": outputs,
            "values": values,
        }
    except DAMAGES as error:
        raise CheckpointError(
            f"{name}: its graph is not described as PyTorch 2.9 and later describe it "
            f"({type(error).__name__}: {error}); export it again with a newer PyTorch:\n"
            f"{HOW_TO_EXPORT}"
        ) from error
    return json.dumps(kept, sort_keys=True, separators=(",", ":"))


def _input_value(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return dtype and sizes of an input; open sizes are named by their examples, a batch not."""
    sizes = [
        size
        if "as_int" in size
        else {"open": None if axis == 0 else size["as_expr"]["hint"]["as_int"]}
        for axis, size in enumerate(value["sizes"])
    ]
    return {"dtype": value["dtype"], "sizes": sizes}


def _place(root: nn.Module, key: str, value: Tensor, name: str) -> None:
    """Register a tensor under its dotted name.

    Raises:
        CheckpointError: If the name cannot be that of a module's tensor.
    """
    *path, last = key.split(".")
    if not all(part.isdecimal() or _NAME.fullmatch(part) for part in (*path, last)):
        raise CheckpointError(f"{name}: {key[:80]!r} cannot be the name of a module's tensor")
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root._modules[part]  # type: ignore[assignment]
    if value.is_floating_point():
        root.register_parameter(last, nn.Parameter(value, requires_grad=False))
    else:
        root.register_buffer(last, value)
