"""A family that the experiment trained, its curvatures, and how its models are tested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.func import functional_call

from assets.experiment_run import Accuracies
from merging.files.checkpoints.lazy_params import Params
from merging.files.data.batches import Batches, Dataset
from merging.fusion import diagonal_fisher, fuse
from merging.fusion.explain.mismatch import loss_gradient
from merging.models.state_dict import scale
from merging.models.zoo.families import FamilyRecipe, LoadedFamily, load_family, train_family

# Convolutions are slow: fewer examples of each set where networks of linear layers take all
# training examples for gradients and all validation examples for coefficients.
CNN_EXAMPLES = 300


@dataclass(frozen=True)
class Trained:
    """A family with its curvatures on the scale of the sum, and its data sets in order."""

    recipe: FamilyRecipe
    family: LoadedFamily
    sets: tuple[Dataset, ...]
    fishers: list[Params]
    base_fisher: Params
    seed: int

    def fused(self, rule: str, weight: float = 1.0, **options: float) -> Params:
        """Fuse all models with equal weights."""
        return fuse(
            rule,
            models=self.family.models,
            base=self.family.base,
            weights=[weight] * len(self.family.models),
            fishers=self.fishers,
            base_fisher=self.base_fisher,
            options=options,
            seed=self.seed,
        )

    def tested(self, params: Params, split: str = "test") -> Accuracies:
        """Return the accuracy on every data set."""
        splits = [getattr(data, split) for data in self.sets]
        if split == "validation" and is_slow(self.recipe):
            splits = [part.take(CNN_EXAMPLES) for part in splits]
        return np.array([accuracy(self.family, [params], part) for part in splits])


def accuracy(family: LoadedFamily, models: Sequence[Params], split: Batches) -> float:
    """Return the accuracy of the mean of the models' probabilities; of one model, its own."""
    right = 0
    with torch.no_grad():
        for x, y in split:
            answers = [functional_call(family.model, m, (x,)).softmax(1) for m in models]
            right += int((torch.stack(answers).mean(0).argmax(1) == y).sum())
    return right / len(split)


def curvature(family: LoadedFamily, params: Params, data: Batches, seed: int) -> Params:
    """Return the diagonal Fisher information, summed over the examples."""
    return scale(diagonal_fisher(family.model, params, data, seed=seed), len(data))


def prepare(recipe: FamilyRecipe, run: int) -> Trained:
    """Train a family, or read the bundled one for run 0, and take its curvatures."""
    family = load_family(recipe.name) if run == 0 else train_family(recipe, run=run)
    assert family.base is not None
    pairs = zip(family.models, family.tasks, strict=True)
    fishers = [curvature(family, params, data.train, run) for params, data in pairs]
    base_fisher = curvature(family, family.base, family.data.train, run)
    return Trained(
        recipe=recipe,
        family=family,
        sets=(family.data, *family.tasks),
        fishers=fishers,
        base_fisher=base_fisher,
        seed=run,
    )


def is_slow(recipe: FamilyRecipe) -> bool:
    """Return whether the family's networks are convolutional, which takes long."""
    return recipe.config["architecture"] != "mlp"


def gradients(t: Trained, models: Sequence[Params]) -> list[Params]:
    """Return the gradient of each task's summed training loss, each at its own model."""
    found = []
    for params, data in zip(models, t.family.tasks, strict=True):
        examples = data.train.take(CNN_EXAMPLES) if is_slow(t.recipe) else data.train
        gradient = loss_gradient(t.family.model, params, examples)
        found.append(scale(gradient, len(data.train) / len(examples)))
    return found
