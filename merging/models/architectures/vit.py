"""A small vision transformer: patches, pre-norm attention blocks, mean over tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from merging.models.architectures.mlp import Shapes


class Attention(nn.Module):
    """Multi-head self-attention with separate query, key and value projections."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (
            nn.Linear(dim, dim),
            nn.Linear(dim, dim),
            nn.Linear(dim, dim),
        )
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Attend over the tokens of `[n, tokens, dim]`."""
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        y: Tensor = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return y


class EncoderBlock(nn.Module):
    """Attention and a two-layer perceptron, each after a LayerNorm and beside a shortcut."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dim), Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Add both branches to the stream `[n, tokens, dim]`."""
        x = x + self.attention(self.norm1(x))
        y: Tensor = self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return x + y


class ViT(nn.Module):
    """A vision transformer on square grey images."""

    def __init__(
        self,
        dim: int,
        depth: int,
        heads: int,
        hidden: int,
        classes: int,
        patch: int = 4,
        side: int = 28,
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, dim, patch, stride=patch)
        self.positions = nn.Parameter(0.02 * torch.randn(1, (side // patch) ** 2, dim))
        self.blocks = nn.ModuleList(EncoderBlock(dim, heads, hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images `[n, 1, side, side]` to logits `[n, classes]`."""
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x).mean(dim=1))
        return logits


def infer_vit(shapes: Shapes) -> dict[str, object] | None:
    """Read the sizes off the shapes of a state dict, or None if it is not such a ViT.

    The number of heads leaves no trace in the shapes; it is taken so that a head has 16 units,
    which is what the bundled ones have.
    """
    if not {"patches.weight", "positions", "head.weight", "blocks.0.fc1.weight"} <= set(shapes):
        return None
    dim, _, patch, _ = shapes["patches.weight"]
    depth = len({name.split(".")[1] for name in shapes if name.startswith("blocks.")})
    return {
        "dim": dim,
        "depth": depth,
        "heads": max(1, dim // 16),
        "hidden": shapes["blocks.0.fc1.weight"][0],
        "classes": shapes["head.weight"][0],
        "patch": patch,
        "side": patch * round(shapes["positions"][1] ** 0.5),
    }
