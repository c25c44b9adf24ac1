"""Sums of squared per-example gradients of a model: by layer where that is right, else by vmap.

Which parameters can be had by layer depends on how a model uses its layers, so it is tried: on
three examples, layer by layer, against their gradients one by one. What differs there (a layer
that reads examples along another axis, a weight that is used in two places) is left to vmap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from merging.files.checkpoints.lazy_params import Params
from merging.fusion.curvature.layer_squares import Measure, measures
from merging.models.state_dict import floating

_EXAMPLES = 1000  # at one time, at most
_PASS_BYTES = 1 << 28  # of layers' outputs in one pass
_GRADIENT_BYTES = 1 << 24  # of single examples' gradients under vmap
_TRIED = 3
_TOLERANCE = 1e-4
_NEGLIGIBLE = 1e-10  # of the largest square: what is only rounding


@dataclass(frozen=True, eq=False)
class _Call:
    """What a layer read, and where its output is in the graph of gradients."""

    inputs: Tensor
    output: GradientEdge


class SumOfSquares:
    """Adds up squared gradients of the log-likelihood, example by example.

    Args:
        model: The architecture, in evaluation mode.
        params: State dict.
        inputs: Some examples, to try on.

    Attributes:
        total: The sums so far, by parameter.
        count: Examples so far.
    """

    def __init__(self, model: nn.Module, params: Mapping[str, Tensor], inputs: Tensor) -> None:
        trained = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        self._model = model
        self._weights = {n: params[n].detach() for n in floating(params) if n in trained}
        self._rest = {n: v.detach() for n, v in params.items() if n not in self._weights}
        self.total = {name: torch.zeros_like(value) for name, value in self._weights.items()}
        self.count = 0
        self._layers = {n: m for n, m in model.named_modules() if measures(m)}
        self._chosen: dict[str, Measure] = {}
        self._copied: list[str] = []
        self._size = _EXAMPLES
        self._try(inputs[torch.arange(_TRIED) % len(inputs)])

    @property
    def by_layer(self) -> set[str]:
        """Layers whose squares are had from what they read and their outputs' gradients."""
        return set(self._chosen)

    def add(self, inputs: Tensor, targets: Tensor, generator: torch.Generator | None) -> None:
        """Add examples; their labels are drawn from the model if a generator is given."""
        for x, y in zip(inputs.split(self._size), targets.split(self._size), strict=True):
            outputs, calls, copies = self._forward(x, self._copied)
            if generator is not None:
                shares = outputs.detach().softmax(1)
                y = torch.multinomial(shares, 1, generator=generator)[:, 0]
            found = self._squares(F.cross_entropy(outputs, y, reduction="sum"), calls, copies)
            for name, square in found.items():
                self.total[name] += square
            missing = {n: w for n, w in self._weights.items() if n not in found}
            if missing:
                self._add_by_vmap(missing, x, y)
            self.count += len(x)

    def _try(self, x: Tensor) -> None:
        """Find out what can be had by layer, and how many examples go in one pass."""
        truth, wanted = self._one_by_one(x)
        least = _NEGLIGIBLE * max((float(v.max()) for v in truth.values() if v.numel()), default=0)

        def right(name: str, value: Tensor) -> bool:
            if value.shape != truth[name].shape or not value.numel():
                return value.shape == truth[name].shape
            off = float((value - truth[name]).abs().max())
            return off <= max(_TOLERANCE * float(truth[name].max()), least)

        alone = [n for n in self._weights if n.rpartition(".")[0] not in self._layers]
        leading = [n for n in alone if self._weights[n].dim() > 1 and len(self._weights[n]) == 1]
        outputs, calls, copies = self._try_copies(x, leading)
        loss = F.cross_entropy(outputs, wanted, reduction="sum")
        gradients = _gradients(loss, calls, copies)
        for name, call in calls.items():
            for measure in measures(self._layers[name]) if name in gradients else ():
                squares = self._measured(name, measure, call, gradients[name])
                if squares and all(right(n, value) for n, value in squares.items()):
                    self._chosen[name] = measure
                    break
        copied = {n: _square(gradients[n]) for n in copies if n in gradients}
        self._copied = [name for name, square in copied.items() if right(name, square)]

    def _one_by_one(self, x: Tensor) -> tuple[Params, Tensor]:
        """Return squares by single examples, and labels: the unlikeliest, for large gradients."""
        held = 0

        def measure(_: nn.Module, __: object, output: object) -> None:
            nonlocal held
            held += output.nbytes if isinstance(output, Tensor) else 0

        hooks = [m.register_forward_hook(measure) for m in self._model.modules()]
        total = {name: torch.zeros_like(value) for name, value in self._weights.items()}
        labels = []
        try:
            for example in x.split(1):
                leaves = _leaves(self._weights)
                outputs = self._call({**leaves, **self._rest}, example)
                labels.append(outputs.detach().argmin(1))
                loss = F.cross_entropy(outputs, labels[-1])
                found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
                for name, gradient in zip(leaves, found, strict=True):
                    total[name] += 0.0 if gradient is None else gradient.square()
        finally:
            for hook in hooks:
                hook.remove()
        self._size = max(1, min(_EXAMPLES, _PASS_BYTES // max(1, held // len(x))))
        return total, torch.cat(labels)

    def _try_copies(self, x: Tensor, names: list[str]) -> tuple[Tensor, dict[str, _Call], Params]:
        """Give each example its own copy of parameters that have one row for all of them."""
        try:
            return self._forward(x, names)
        except (RuntimeError, ValueError, AssertionError, IndexError):
            return self._forward(x, [])  # this model uses them in another way

    def _forward(self, x: Tensor, copied: list[str]) -> tuple[Tensor, dict[str, _Call], Params]:
        calls: dict[str, _Call] = {}
        often: set[str] = set()

        def note(name: str, given: tuple[object, ...], output: object) -> None:
            if name in calls or not given or not isinstance(output, Tensor):
                often.add(name)
            elif isinstance(given[0], Tensor) and len(given[0]) == len(output) == len(x):
                calls[name] = _Call(given[0].detach(), get_gradient_edge(output))

        hooks = [
            layer.register_forward_hook(lambda _, i, o, name=name: note(name, i, o))
            for name, layer in self._layers.items()
        ]
        leaves = _leaves(self._weights)
        copies = {
            n: leaves[n].detach().repeat(len(x), *[1] * (leaves[n].dim() - 1)).requires_grad_()
            for n in copied
        }
        try:
            outputs = self._call({**leaves, **copies, **self._rest}, x)
        finally:
            for hook in hooks:
                hook.remove()
        return outputs, {n: call for n, call in calls.items() if n not in often}, copies

    def _squares(self, loss: Tensor, calls: dict[str, _Call], copies: Params) -> Params:
        known = {name: call for name, call in calls.items() if name in self._chosen}
        gradients = _gradients(loss, known, copies)
        found = {name: _square(gradients[name]) for name in copies if name in gradients}
        for name, call in known.items():
            if name in gradients:
                found |= self._measured(name, self._chosen[name], call, gradients[name])
        return found

    def _measured(self, name: str, measure: Measure, call: _Call, gradient: Tensor) -> Params:
        prefix = f"{name}." if name else ""
        layer = self._layers[name]
        held = {**self._weights, **self._rest}
        own = {n: held[prefix + n] for n in layer.state_dict() if prefix + n in held}
        try:
            squares = measure(layer, own, call.inputs, gradient)
        except (RuntimeError, ValueError, IndexError):
            return {}  # the layer's input or output is not of the form that this reads
        return {prefix + n: value for n, value in squares.items() if prefix + n in self._weights}

    def _add_by_vmap(self, weights: Params, x: Tensor, y: Tensor) -> None:
        rest = {n: w for n, w in {**self._weights, **self._rest}.items() if n not in weights}

        def loss(own: Params, example: Tensor, label: Tensor) -> Tensor:
            outputs = self._call({**own, **rest}, example[None])
            return F.cross_entropy(outputs, label[None])

        squares = vmap(grad(loss), in_dims=(None, 0, 0), randomness="error")
        size = max(1, _GRADIENT_BYTES // max(1, sum(w.nbytes for w in weights.values())))
        for some, labels in zip(x.split(size), y.split(size), strict=True):
            with sdpa_kernel(SDPBackend.MATH):  # the fused kernel has no rule for vmap
                gradients = squares(weights, some, labels)
            for name, gradient in gradients.items():
                self.total[name] += gradient.square().sum(0)

    def _call(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        outputs: Tensor = functional_call(self._model, dict(params), (x,), tie_weights=False)
        return outputs


def _leaves(weights: Mapping[str, Tensor]) -> Params:
    return {name: value.detach().requires_grad_() for name, value in weights.items()}


def _square(copies: Tensor) -> Tensor:
    return copies.square().sum(0, keepdim=True)


def _gradients(loss: Tensor, calls: Mapping[str, _Call], copies: Params) -> Params:
    inputs: list[Any] = [*(call.output for call in calls.values()), *copies.values()]
    if not inputs:
        return {}
    found = torch.autograd.grad(loss, inputs, allow_unused=True)
    names = [*calls, *copies]
    return {n: g for n, g in zip(names, found, strict=True) if g is not None}
