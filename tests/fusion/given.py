"""A small architecture, three models of it, and everything that any rule may need."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from merging.files.data.batches import Batches
from merging.fusion import RULES, Fused, fuse_with_notes, gram_matrices

State = dict[str, Tensor]


class Net(nn.Module):
    """A linear layer and a normalization: weights, statistics, and a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.norm = nn.Linear(4, 3), nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.fc(x))


MODEL = Net()
WEIGHTS = ("fc.weight", "fc.bias", "norm.weight", "norm.bias")
STATISTICS = ("norm.running_mean", "norm.running_var")
BATCHES = Batches(
    torch.randn(40, 4, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3, 16
)


def state(seed: int, dtype: torch.dtype = torch.float64) -> State:
    generator = torch.Generator().manual_seed(seed)
    drawn = {
        name: torch.randn(value.shape, generator=generator, dtype=dtype)
        if value.is_floating_point()
        else torch.tensor(seed)
        for name, value in MODEL.state_dict().items()
    }
    return {**drawn, "norm.running_var": drawn["norm.running_var"].abs() + 0.1}


def positive(seed: int) -> State:
    return {k: v.abs() + 0.1 for k, v in state(seed).items() if v.is_floating_point()}


BASE, MODELS = state(0), (state(1), state(2), state(3))
FISHERS = [positive(4), positive(5), positive(6)]
BASE_FISHER = {k: 90 * v for k, v in positive(7).items()}  # above what is taken away
GRAMS = [gram_matrices(MODEL.double(), m, [(x.double(), y) for x, y in BATCHES]) for m in MODELS]
MODEL.float()


def count(rule: str) -> int:
    """Models that a rule takes here: three, or as many as it can."""
    return RULES[rule].card.most_models or 3


def fused(rule: str, models: Any = None, **changes: Any) -> Fused:
    """Fuse with everything given that the rule may need."""
    n = count(rule)
    models = list(MODELS[:n] if models is None else models)
    card = RULES[rule].card
    given: dict[str, Any] = {"models": models, "seed": 3}
    if card.needs_base:
        given["base"] = BASE
    if card.needs_fishers:
        given["fishers"] = FISHERS[: len(models)]
    if card.needs_base_fisher:
        given["base_fisher"] = BASE_FISHER
    if card.needs_grams:
        given["grams"] = GRAMS[: len(models)]
    if card.needs_sizes:
        given["sizes"] = [10, 20, 30][: len(models)]
    if card.needs_data:
        given |= {"model": MODEL, "batches": BATCHES}
    return fuse_with_notes(rule, **given | changes)


def assert_equal(one: State, other: State, tolerance: float = 1e-12, names: Any = None) -> None:
    for name in names or (n for n in other if other[n].is_floating_point()):
        torch.testing.assert_close(
            one[name].double(), other[name].double(), atol=tolerance, rtol=tolerance
        )
