"""Training of the bundled pairs, from seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from merging.files.data.batches import Batches
from merging.models.architectures.registry import Config, build_model
from merging.schema.progress import Progress

OnEpoch = Callable[[int, dict[str, Tensor]], None]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        optimiser: Adam, or SGD with momentum 0.9.
        lr: The (peak) learning rate.
        epochs: Passes over the training split.
        batch_size: Examples per step.
        schedule: `"constant"`, or `"one-cycle"` (warm-up, then cosine to zero).
        weight_decay: L2 penalty added to the gradient.
        shift: Augmentation: every batch moved by up to so many pixels in each direction.
    """

    optimiser: Literal["adam", "sgd"]
    lr: float
    epochs: int
    batch_size: int
    schedule: Literal["constant", "one-cycle"] = "constant"
    weight_decay: float = 0.0
    shift: int = 0


def train(
    config: Config,
    recipe: Recipe,
    data: Batches,
    *,
    seed: int,
    start: Mapping[str, Tensor] | None = None,
    on_epoch: OnEpoch | None = None,
    on_progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Train a network of `config` on `data`.

    Args:
        config: The architecture and its sizes.
        recipe: How to train.
        data: The training examples.
        seed: Seed of initialisation, order of examples and augmentation.
        start: State dict to go on from instead of an initialisation; left as it is.
        on_epoch: Called after every epoch with epochs done and the state dict then.
        on_progress: Called after every epoch with epochs done, epochs in all, and the mean loss.

    Returns:
        The state dict, on the CPU.
    """
    model = build_model(config, seed=seed).train()
    if start is not None:
        model.load_state_dict(dict(start))
    generator = torch.Generator().manual_seed(seed)
    steps = -(-len(data) // recipe.batch_size) * recipe.epochs
    optimiser, scheduler = _optimiser(model, recipe, steps)
    for epoch in range(recipe.epochs):
        total = 0.0
        order = torch.randperm(len(data), generator=generator)
        for chosen in order.split(recipe.batch_size):
            x, y = _shift(data.inputs[chosen], recipe.shift, generator), data.targets[chosen]
            loss = F.cross_entropy(model(x), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            scheduler.step()
            total += float(loss.detach()) * len(y)
        if on_epoch is not None:
            on_epoch(epoch + 1, _state(model))
        if on_progress is not None:
            on_progress(epoch + 1, recipe.epochs, f"training loss {total / len(data):.4f}")
    return _state(model)


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _optimiser(
    model: nn.Module, recipe: Recipe, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimiser: torch.optim.Optimizer
    if recipe.optimiser == "adam":
        optimiser = torch.optim.Adam(
            model.parameters(), recipe.lr, weight_decay=recipe.weight_decay
        )
    else:
        optimiser = torch.optim.SGD(
            model.parameters(), recipe.lr, momentum=0.9, weight_decay=recipe.weight_decay
        )
    if recipe.schedule == "one-cycle":
        return optimiser, torch.optim.lr_scheduler.OneCycleLR(
            optimiser, recipe.lr, total_steps=max(steps, 10), pct_start=0.2, cycle_momentum=False
        )
    return optimiser, torch.optim.lr_scheduler.ConstantLR(optimiser, factor=1.0)


def _shift(x: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Move all images of a batch by one random offset; what enters is background."""
    if pixels == 0:
        return x
    dy, dx = torch.randint(0, 2 * pixels + 1, (2,), generator=generator).tolist()
    padded = F.pad(x, (pixels, pixels, pixels, pixels), value=float(x.min()))
    return padded[..., dy : dy + x.shape[-2], dx : dx + x.shape[-1]]
