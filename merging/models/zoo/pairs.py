"""The bundled pairs: what they are, how they were trained, and reading them.

Every pair is two networks of one architecture in `assets/zoo/<name>/{a,b}.safetensors`, with a
card that says how they came to be. `make zoo` trains them again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from merging.files.checkpoints.read import read_checkpoint
from merging.files.data.batches import Batches, Dataset
from merging.files.data.bundled import load_dataset
from merging.models.architectures.registry import build_model
from merging.models.state_dict import in_order
from merging.models.zoo.training import Recipe
from merging.schema.cards.zoo import ASSETS, read_card


@dataclass(frozen=True)
class PairRecipe:
    """How a bundled pair is made.

    Attributes:
        name: What requests call it.
        title: What screens call it.
        shows: What one learns from it, in a sentence.
        config: The architecture and its sizes.
        data: The data set's name.
        recipe: How both models are trained; None for the hand-made pair.
        seeds: Seeds of model A and model B.
        low_share: Share of the lower half of the labels that model A sees (B sees the rest);
            None if both see everything.
    """

    name: str
    title: str
    shows: str
    config: Mapping[str, Any]
    data: str
    recipe: Recipe | None
    seeds: tuple[int, int] = (1, 2)
    low_share: float | None = None


def _mlp(*widths: int) -> dict[str, Any]:
    return {"architecture": "mlp", "widths": list(widths)}


def _resnet(width: int, norm: str) -> dict[str, Any]:
    sizes = {"width": width, "blocks": 1, "classes": 10, "norm": norm, "stem_stride": 2}
    return {"architecture": "resnet", **sizes}


def _adam(lr: float, epochs: int, batch_size: int = 100) -> Recipe:
    return Recipe(optimiser="adam", lr=lr, epochs=epochs, batch_size=batch_size)


def _one_cycle(lr: float, epochs: int, shift: int = 2, weight_decay: float = 5e-4) -> Recipe:
    return Recipe(
        optimiser="sgd",
        lr=lr,
        epochs=epochs,
        batch_size=100,
        schedule="one-cycle",
        weight_decay=weight_decay,
        shift=shift,
    )


RECIPES: Mapping[str, PairRecipe] = MappingProxyType({
    pair.name: pair
    for pair in (
        PairRecipe(
            name="mnist-mlp-512",
            title="MNIST, MLP 3 × 512",
            shows="Wide enough: once B's units are in A's order, the barrier is gone.",
            config=_mlp(784, 512, 512, 512, 10),
            data="mnist",
            recipe=_adam(1e-3, 30),
        ),
        PairRecipe(
            name="mnist-mlp-32",
            title="MNIST, MLP 3 × 32",
            shows="Too narrow: no order of so few units takes the barrier away.",
            config=_mlp(784, 32, 32, 32, 10),
            data="mnist",
            recipe=_adam(1e-3, 60),
            seeds=(1, 3),
        ),
        PairRecipe(
            name="digits-mlp-256",
            title="Digits, MLP 3 × 256",
            shows="Trained with one-cycle SGD: small, quick, and one basin once aligned.",
            config=_mlp(64, 256, 256, 256, 10),
            data="digits",
            recipe=_one_cycle(0.1, 60, shift=0, weight_decay=0.0),
        ),
        PairRecipe(
            name="digits-mlp-undertrained",
            title="Digits, MLP 3 × 256, under-trained",
            shows="SGD with too small a step: matching cannot repair what training did not do.",
            config=_mlp(64, 256, 256, 256, 10),
            data="digits",
            recipe=Recipe(optimiser="sgd", lr=0.003, epochs=25, batch_size=100),
        ),
        PairRecipe(
            name="mnist-cnn",
            title="MNIST, CNN without norm",
            shows="Convolutions, then flatten: one channel is a whole block of the next layer.",
            config={
                "architecture": "cnn",
                "channels": [32, 64],
                "hidden": 256,
                "classes": 10,
                "side": 28,
            },
            data="mnist",
            recipe=_adam(1e-3, 15),
        ),
        PairRecipe(
            name="mnist-vgg-ln",
            title="MNIST, VGG with LayerNorm",
            shows="LayerNorm over channels keeps the statistics, so matching alone goes far.",
            config={"architecture": "vgg", "width": 32, "hidden": 256, "classes": 10},
            data="mnist",
            recipe=_one_cycle(0.02, 10),
        ),
        PairRecipe(
            name="mnist-resnet-bn",
            title="MNIST, ResNet with BatchNorm",
            shows="Matching alone leaves a collapse; re-estimating the statistics (RESET) "
            "mends it.",
            config={**_resnet(24, "batch"), "blocks": 2},
            data="mnist",
            recipe=_one_cycle(0.1, 8),
        ),
        PairRecipe(
            name="mnist-resnet-ln",
            title="MNIST, ResNet with LayerNorm, narrow",
            shows="The paper's kind of ResNet at a small width: alignment helps in part.",
            config=_resnet(12, "layer"),
            data="mnist",
            recipe=_one_cycle(0.03, 12),
        ),
        PairRecipe(
            name="mnist-resnet-ln-wide",
            title="MNIST, ResNet with LayerNorm, wide",
            shows="The same at four times the width: the aligned midpoint is nearly a parent.",
            config=_resnet(48, "layer"),
            data="mnist",
            recipe=_one_cycle(0.03, 12),
        ),
        PairRecipe(
            name="mnist-vit",
            title="MNIST, vision transformer",
            shows="Attention: heads, units within them, one stream through all layers; "
            "still two basins.",
            config={
                "architecture": "vit",
                "dim": 64,
                "depth": 3,
                "heads": 4,
                "hidden": 256,
                "classes": 10,
                "patch": 4,
                "side": 28,
            },
            data="mnist",
            recipe=Recipe(
                optimiser="adam",
                lr=2e-3,
                epochs=40,
                batch_size=100,
                schedule="one-cycle",
                weight_decay=0.0,
                shift=2,
            ),
        ),
        PairRecipe(
            name="mnist1d-conv",
            title="MNIST-1D, 1-D convolutions",
            shows="Sequences instead of images; the symmetry is found the same way.",
            config={"architecture": "sequence-cnn", "channels": 128, "classes": 10, "length": 40},
            data="mnist1d",
            recipe=_adam(1e-3, 30),
        ),
        PairRecipe(
            name="mnist-split",
            title="MNIST, split labels",
            shows="A saw mostly the digits 5 to 9, B mostly 0 to 4: the merged model knows both.",
            config=_mlp(784, 512, 512, 512, 10),
            data="mnist",
            recipe=_adam(1e-3, 30),
            low_share=0.2,
        ),
        PairRecipe(
            name="two-unit-counterexample",
            title="Two units by hand",
            shows="Two exact networks for one task that no permutation brings together.",
            config=_mlp(2, 2, 2, 1),
            data="quadrant",
            recipe=None,
        ),
    )
})


@dataclass(frozen=True, eq=False)
class Pair:
    """Two models of one architecture, their data, and how they came to be.

    Attributes:
        name: What requests call it.
        model: The network, in evaluation mode; its own parameters are those of model A.
        params_a: State dict of model A.
        params_b: State dict of model B.
        data: The data set.
        card: Architecture, data, recipe, seeds, accuracies and fingerprints.
    """

    name: str
    model: nn.Module
    params_a: dict[str, Tensor]
    params_b: dict[str, Tensor]
    data: Dataset
    card: Mapping[str, Any] = field(default_factory=dict)


@lru_cache(maxsize=4)
def load_pair(name: str) -> Pair:
    """Read a bundled pair.

    Args:
        name: One of `list_pairs()`.

    Returns:
        The pair. It is shared between callers: treat its tensors as read-only.

    Raises:
        UnknownNameError: If there is no such pair.
    """
    card = read_card(name)
    folder = ASSETS / "zoo" / name
    model = build_model(RECIPES[name].config)
    params_a, params_b = (
        in_order(read_checkpoint(folder / f"{letter}.safetensors")[0], model.state_dict())
        for letter in "ab"
    )
    model.load_state_dict(params_a)
    return Pair(
        name=name,
        model=model,
        params_a=params_a,
        params_b=params_b,
        data=load_dataset(RECIPES[name].data),
        card=card,
    )


def training_split(pair: PairRecipe, model: int, data: Dataset) -> Batches:
    """Return the examples that model A (0) or model B (1) of a pair was trained on.

    For a pair with `low_share`, A sees that share of the lower half of the labels and the rest of
    the upper half, and B the other way round (Ainsworth et al. 2023, §5.4).
    """
    if pair.low_share is None:
        return data.train
    targets, chosen = data.train.targets, []
    for label in range(data.classes):
        rows = torch.nonzero(targets == label).flatten()
        share = pair.low_share if label < data.classes // 2 else 1 - pair.low_share
        cut = round(share * len(rows))
        chosen.append(rows[:cut] if model == 0 else rows[cut:])
    rows = torch.cat(chosen)
    return Batches(data.train.inputs[rows], targets[rows], name=f"train {'AB'[model]}")


def counterexample(model: int) -> dict[str, Tensor]:
    """Return the hand-made networks of Ainsworth et al. (2023, Eq. 4 and 5): A (0) or B (1)."""
    first = [[-1.0, 0.0], [0.0, -1.0]] if model == 0 else [[1.0, 0.0], [0.0, 1.0]]
    second = [[-1.0, 0.0], [0.0, 1.0]] if model == 0 else [[1.0, 0.0], [0.0, -1.0]]
    inner, outer = ([1.0, 0.0], [1.0, 0.0]) if model == 0 else ([0.0, 1.0], [0.0, 1.0])
    return {
        "layers.0.weight": torch.tensor(first),
        "layers.0.bias": torch.tensor(inner),
        "layers.1.weight": torch.tensor(second),
        "layers.1.bias": torch.tensor(outer),
        "layers.2.weight": torch.tensor([[-1.0, -1.0]]),
        "layers.2.bias": torch.zeros(1),
    }
