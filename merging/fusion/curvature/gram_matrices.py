"""Gram matrices of what linear layers and convolutions read, which RegMean weighs by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from merging.files.checkpoints.lazy_params import Params
from merging.files.data.batches import BatchesLike
from merging.fusion.curvature.patches import Convolution, patches, reads_patches
from merging.schema.errors import DataError

_EXAMPLES = 500


def gram_matrices(
    model: nn.Module,
    params: Mapping[str, Tensor],
    batches: BatchesLike,
    *,
    examples: int | None = None,
) -> Params:
    """Return the mean of `x x'` over everything that each layer reads.

    Every call of an `nn.Linear` counts, with any leading dimensions; of a convolution over one
    axis or two with one group, whose inputs are patches. Layers of other kinds, and weights that a
    module uses by itself (attention's projections), have none: RegMean averages them.

    Args:
        model: The architecture.
        params: State dict.
        batches: Any re-iterable of `(inputs, targets)`; take the model's own training data.
        examples: Examples to take at most; all by default.

    Returns:
        float64 `[d, d]` by the weight's name, `d` the numbers that one output reads.

    Raises:
        DataError: If there are no examples.

    Example:
        >>> layer, x = nn.Linear(2, 1), torch.tensor([[1.0, 2.0], [3.0, 0.0]])
        >>> gram_matrices(layer, layer.state_dict(), [(x, torch.zeros(2))])["weight"].tolist()
        [[5.0, 1.0], [1.0, 2.0]]
    """
    total: Params = {}
    rows: dict[str, int] = {}

    def note(name: str, layer: nn.Module, inputs: Tensor) -> None:
        weight = f"{name}.weight" if name else "weight"
        read = _rows(layer, inputs.detach()).double()
        total[weight] = total.get(weight, 0.0) + read.T @ read
        rows[weight] = rows.get(weight, 0) + len(read)

    hooks = [
        layer.register_forward_pre_hook(
            lambda module, given, name=name: note(name, module, given[0])
        )
        for name, layer in model.named_modules()
        if _has_gram(layer)
    ]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for x in _chunks(batches, examples):
                functional_call(model, dict(params), (x,), tie_weights=False)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    if not total:
        raise DataError(
            "Gram matrices need examples and a linear layer or convolution that reads them; give "
            "training batches"
        )
    return {name: value / rows[name] for name, value in total.items()}


def _has_gram(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or (
        isinstance(layer, Convolution) and layer.groups == 1 and reads_patches(layer)
    )


def _rows(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Return what single outputs read, `[rows, d]`."""
    if isinstance(layer, Convolution):
        return patches(layer, inputs).transpose(1, 2).flatten(0, 1)
    return inputs.flatten(0, -2)


def _chunks(batches: BatchesLike, examples: int | None) -> Iterable[Tensor]:
    left = examples if examples is not None else float("inf")
    for inputs, _ in batches:
        for x in inputs.split(_EXAMPLES):
            if left <= 0:
                return
            taken = int(min(left, len(x)))
            left -= taken
            yield x[:taken]
