"""Small models as a person has them: fine-tuned from a base, trained apart, or of one run.

And what the library itself makes of them: `fused` calls `merging.fuse` and its like directly, with
nothing of requests, tasks or stores in between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import merging
from merging.files.data.batches import Batches
from merging.fusion.networks.distill import distill
from merging.fusion.networks.transport import fuse_by_transport
from merging.fusion.networks.zipit import zip_models
from merging.models.zoo.training import Recipe, train
from merging.results.requests import CURVATURE_EXAMPLES, SHOWN_EXAMPLES
from merging.schema.cards.fusion.table import find_card

State = dict[str, Tensor]
CONFIG: dict[str, Any] = {"architecture": "mlp", "widths": [16, 12, 10, 3]}
FEATURES, CLASSES, EXAMPLES = 16, 3, 240
START = Recipe("adam", 1e-2, 4, 40)
FURTHER = Recipe("adam", 3e-3, 2, 40)
RUN_EPOCHS = 5
# The first model of some is as a wrapper saves it.
PREFIXES = {"apart": "module.", "run": "_orig_mod."}


@dataclass(frozen=True)
class OwnModels:
    """Models and examples as files, and as the library reads them.

    Attributes:
        networks: Every model's architecture.
        inputs: Examples of its inputs.
        models: State dicts.
        base: What they were fine-tuned from, if anything.
        train: Examples that the models were trained on.
        validation: Examples that soups choose by.
        base_train: Examples that the base was trained on.
        prefix: What stands before all names in the first file.
        files: One file per model.
        base_file: The base's.
        examples: The file of examples.
    """

    networks: tuple[nn.Module, ...]
    inputs: tuple[Tensor, ...]
    models: tuple[State, ...]
    base: State | None
    train: Batches
    validation: Batches
    base_train: Batches
    prefix: str = ""
    files: tuple[Path, ...] = ()
    base_file: Path | None = None
    examples: Path | None = None

    @property
    def model(self) -> nn.Module:
        """The first model's architecture, and that of what is merged."""
        return self.networks[0]

    def some(self, count: int) -> OwnModels:
        """The first of the models alone."""
        return self.of(range(count))

    def of(self, members: Sequence[int]) -> OwnModels:
        """Some of the models, in this order."""
        return replace(
            self,
            networks=tuple(self.networks[k] for k in members),
            models=tuple(self.models[k] for k in members),
            files=tuple(self.files[k] for k in members if self.files),
        )


def bring(kind: str, folder: Path) -> OwnModels:
    """Train models, and write them and their examples into a folder.

    Args:
        kind: `"fine-tuned"`, `"apart"`, `"widths"` or `"run"`.
        folder: An empty folder.

    Returns:
        The models.
    """
    x, y = _examples()
    np.savez(folder / "examples.npz", x=x, y=y)
    data = Batches(torch.from_numpy(x), torch.from_numpy(y))
    states, base = _states(kind, data)
    files = [folder / f"model-{k + 1}.safetensors" for k in range(len(states))]
    prefix = PREFIXES.get(kind, "")
    for k, (path, params) in enumerate(zip(files, states, strict=True)):
        before = prefix if k == 0 else ""
        merging.write_checkpoint(path, {before + name: value for name, value in params.items()})
    base_file = None
    if base is not None:
        base_file = folder / "base.safetensors"
        merging.write_checkpoint(base_file, base)
    read = [merging.read_model(path) for path in files]
    first = read[0]
    part = merging.read_examples(folder / "examples.npz", first).train
    return OwnModels(
        tuple(one.model for one in read),
        first.example_inputs,
        tuple(states),
        base,
        *(part, part, part),  # files say no more than which examples are for training
        prefix,
        tuple(files),
        base_file,
        folder / "examples.npz",
    )


def bundled(name: str, count: int) -> OwnModels:
    """The first models of a bundled family of one task."""
    family = merging.load_family(name)
    (task,) = family.tasks
    base_train = (family.data or task).train
    return OwnModels(
        (family.model,) * count,
        (task.test.inputs[:2],),
        tuple(family.models[:count]),
        family.base,
        *(task.train, task.validation or task.train, base_train),
    )


def _examples() -> tuple[np.ndarray, np.ndarray]:
    """Three clouds, so that a network has something to learn."""
    rng = np.random.default_rng(0)
    y = np.arange(EXAMPLES) % CLASSES
    centres = rng.standard_normal((CLASSES, FEATURES))
    return (centres[y] + rng.standard_normal((EXAMPLES, FEATURES))).astype(np.float32), y


def _states(kind: str, data: Batches) -> tuple[list[State], State | None]:
    if kind == "apart":
        return [train(CONFIG, START, data, seed=k) for k in range(3)], None
    if kind == "widths":
        widths = ([16, 12, 10, 3], [16, 20, 6, 3], [16, 8, 10, 3])
        return [
            train(CONFIG | {"widths": own}, START, data, seed=k) for k, own in enumerate(widths)
        ], None
    if kind == "run":
        kept: list[State] = []
        longer = replace(START, epochs=RUN_EPOCHS)
        train(CONFIG, longer, data, seed=0, on_epoch=lambda _, state: kept.append(state))
        return kept, None
    base = train(CONFIG, START, data, seed=0)
    parts = [Batches(data.inputs[k::3], data.targets[k::3]) for k in range(3)]
    # Steps of one third of the examples each: every task vector is its own.
    return [train(CONFIG, FURTHER, part, seed=k, start=base) for k, part in enumerate(parts)], base


def fused(
    rule: str,
    family: OwnModels,
    *,
    weights: Sequence[float] | None = None,
    options: Mapping[str, Any] | None = None,
    order: str = "",
) -> State:
    """What the library makes of own models, called directly.

    Args:
        rule: One of `RULE_CARDS`.
        family: The models; of the first one's file are the names.
        weights: One number per model.
        options: The rule's options.
        order: How the models are lined up first, if at all.

    Returns:
        What is to be written.
    """
    found = _merged(rule, family, weights, options, order)
    return {family.prefix + name: value for name, value in found.items()}


def _merged(
    rule: str,
    family: OwnModels,
    weights: Sequence[float] | None,
    options: Mapping[str, Any] | None,
    order: str,
) -> State:
    spec = merging.find_symmetry(family.model, family.inputs)
    models: Sequence[State] = family.models
    orders = None
    if order:
        orders = merging.align_many(spec, family.model, models, order).permutations
        models = [merging.permute(spec, o, m) for o, m in zip(orders, models, strict=True)]
    card, given = find_card(rule), {}
    if card.on_networks:
        return _whole(rule, family, models, spec, weights, options)
    if card.needs_fishers:
        own = [_curvature(family, params, family.train) for params in family.models]
        if orders is not None:
            own = [merging.permute(spec, o, f) for o, f in zip(orders, own, strict=True)]
        given["fishers"] = own
    if card.needs_base_fisher:
        given["base_fisher"] = _curvature(family, family.base, family.base_train)
    if card.needs_grams:
        given["grams"] = [
            merging.gram_matrices(family.model, params, family.train, examples=CURVATURE_EXAMPLES)
            for params in models
        ]
    if card.needs_data:
        given |= {"model": family.model, "batches": family.validation}
    if card.needs_sizes:
        given["sizes"] = [len(family.train)] * len(models)
    return merging.fuse(
        rule, models=models, base=family.base, weights=weights, options=options, **given
    )


def _curvature(family: OwnModels, params: State, data: Batches) -> State:
    mean = merging.diagonal_fisher(family.model, params, data, examples=CURVATURE_EXAMPLES)
    return merging.on_sum_scale(mean, len(data))


def _whole(
    rule: str,
    family: OwnModels,
    models: Sequence[State],
    spec: Any,
    weights: Sequence[float] | None,
    options: Mapping[str, Any] | None,
) -> State:
    model, some = family.model, family.train.take(SHOWN_EXAMPLES)
    if rule == "zipit":
        return zip_models(spec, model, models, some, options=options).heads[0]
    if rule == "transport":
        specs = [merging.find_symmetry(network, family.inputs) for network in family.networks]
        return fuse_by_transport(
            family.networks, models, specs, some, weights=weights, options=options
        ).params
    start = merging.fuse("average", models=models, weights=weights)
    return distill(model, start, models, family.train, options=options).params
