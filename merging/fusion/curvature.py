"""Diagonal curvature: means of squared per-example gradients, fast."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from merging.errors import DataError, UnknownNameError
from merging.params import Params, floating

Labels = Literal["sampled", "true"]

# Examples whose outputs are held at one time, and bytes of single examples' gradients.
_CHUNK_BYTES = 1 << 24
_EXAMPLES = 1000


def diagonal_fisher(
    model: nn.Module,
    params: Mapping[str, Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    labels: Labels = "sampled",
    examples: int | None = None,
    seed: int = 0,
) -> Params:
    """Mean over examples of the squared gradient of the log-likelihood, entry by entry.

    Take it on training data. Multiply by the size of the data set for the scale of the sum, which
    fusing needs (Daheim et al. 2024, §3).

    Args:
        model: The architecture.
        params: State dict.
        batches: Any re-iterable of `(inputs, class numbers)`.
        labels: `"sampled"` draws one label per example from the model itself (the Fisher
            information); `"true"` takes the data's (the empirical Fisher).
        examples: Examples to take at the most; all by default.
        seed: Of the drawn labels.

    Returns:
        One tensor per floating entry of the state dict; zeros for buffers.

    Raises:
        UnknownNameError: If `labels` is neither.
        DataError: If there are no examples.
    """
    if labels not in ("sampled", "true"):
        raise UnknownNameError(f"unknown labels {labels!r}; choose from 'sampled', 'true'")
    trained = {n for n, _ in model.named_parameters(remove_duplicate=False)}
    weights = {n: params[n].detach() for n in floating(params) if n in trained}
    rest = {n: value for n, value in params.items() if n not in weights}
    generator = torch.Generator().manual_seed(seed)
    was_training = model.training
    model.eval()

    def loss(own: Params, x: Tensor, y: Tensor) -> Tensor:
        outputs = functional_call(model, {**own, **rest}, (x[None],), tie_weights=False)
        return F.cross_entropy(outputs, y[None])

    squares = vmap(grad(loss), in_dims=(None, 0, 0), randomness="error")
    total = {name: torch.zeros_like(value) for name, value in weights.items()}
    linear = _Linear.of(model, weights)
    size = max(1, _CHUNK_BYTES // max(1, sum(v.nbytes for v in weights.values())))
    count = 0
    try:
        for x, y in _chunks(batches, examples):
            wanted = y
            if labels == "sampled":
                with torch.no_grad():
                    logits = functional_call(model, dict(params), (x,), tie_weights=False)
                wanted = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
            count += len(x)
            if linear is not None and linear.add(total, params, x, wanted):
                continue
            for some, labelled in zip(x.split(size), wanted.split(size), strict=True):
                with sdpa_kernel(SDPBackend.MATH):  # the fused kernel has no rule for vmap
                    gradients = squares(weights, some, labelled)
                for name, gradient in gradients.items():
                    total[name] += gradient.square().sum(0)
    finally:
        model.train(was_training)
    if not count:
        raise DataError("curvature needs examples, and none were given; give training batches")
    mean = {name: value / count for name, value in total.items()}
    return {
        name: mean[name] if name in mean else torch.zeros_like(params[name])
        for name in floating(params)
    }


class _Linear:
    """Sums of squared gradients of a network of linear layers, without any single gradient.

    A layer's gradient for one example is the outer product of what its output's gradient and its
    input are, so the sum of its squares is one product of matrices.
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, nn.Linear]) -> None:
        self._model, self._layers = model, layers

    @classmethod
    def of(cls, model: nn.Module, weights: Mapping[str, Tensor]) -> _Linear | None:
        """For a model all of whose parameters are linear layers' own; else None."""
        layers = {n: m for n, m in model.named_modules() if type(m) is nn.Linear}
        owned = [f"{n}.{p}" for n, layer in layers.items() for p, _ in layer.named_parameters()]
        return cls(model, layers) if layers and sorted(owned) == sorted(weights) else None

    def add(self, total: Params, params: Mapping[str, Tensor], x: Tensor, targets: Tensor) -> bool:
        """Add the squares of some examples, if every layer reads one vector per example, once."""
        seen: dict[str, tuple[Tensor, Tensor]] = {}
        fits = True

        def note(name: str, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            nonlocal fits
            fits &= name not in seen and inputs[0].dim() == 2 and len(inputs[0]) == len(x)
            seen[name] = inputs[0].detach(), output

        hooks = [
            layer.register_forward_hook(lambda _, i, o, name=name: note(name, i, o))
            for name, layer in self._layers.items()
        ]
        try:
            outputs = functional_call(
                self._model,
                {name: value.detach().requires_grad_() for name, value in params.items()},
                (x,),
                tie_weights=False,
            )
        finally:
            for hook in hooks:
                hook.remove()
        if not fits or len(seen) < len(self._layers):
            return False
        loss = F.cross_entropy(outputs, targets, reduction="sum")
        gradients = torch.autograd.grad(loss, [output for _, output in seen.values()])
        for (name, (inputs, _)), gradient in zip(seen.items(), gradients, strict=True):
            squared = gradient.square()
            total[f"{name}.weight"] += squared.T @ inputs.square()
            if f"{name}.bias" in total:
                total[f"{name}.bias"] += squared.sum(0)
        return True


def _chunks(
    batches: Iterable[tuple[Tensor, Tensor]], examples: int | None
) -> Iterable[tuple[Tensor, Tensor]]:
    left = examples if examples is not None else float("inf")
    for inputs, targets in batches:
        for x, y in zip(inputs.split(_EXAMPLES), targets.split(_EXAMPLES), strict=True):
            if left <= 0:
                return
            taken = int(min(left, len(x)))
            left -= taken
            yield x[:taken], y[:taken]
