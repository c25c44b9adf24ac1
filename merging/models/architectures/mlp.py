"""Multi-layer perceptrons: linear layers with ReLU between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

Shapes = Mapping[str, tuple[int, ...]]


class MLP(nn.Module):
    """Linear layers with ReLU between them, on flattened inputs."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(n_in, n_out) for n_in, n_out in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs `[n, ...]` to logits `[n, classes]`."""
        x = x.flatten(1)
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        logits: Tensor = self.layers[-1](x)
        return logits


def infer_mlp(shapes: Shapes) -> dict[str, object] | None:
    """Read the widths off the shapes of a state dict, or None if it is not such an MLP."""
    depth = len(shapes) // 2
    names = {f"layers.{k}.{kind}" for k in range(depth) for kind in ("weight", "bias")}
    if depth == 0 or set(shapes) != names:
        return None
    weights = [shapes[f"layers.{k}.weight"] for k in range(depth)]
    if any(len(shape) != 2 for shape in weights):
        return None
    return {"widths": [weights[0][1], *(shape[0] for shape in weights)]}
