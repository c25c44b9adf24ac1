"""Train the bundled families again: weights, cards, and the results that pages open with.

Run `make families`, or `python assets/build_families.py mnist-mild` for one of them. One thread,
and seeds: the same machine and PyTorch give the same weights.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from assets.build import Ask, write_results
from merging.files.checkpoints.fingerprint import fingerprint
from merging.files.checkpoints.lazy_params import Params
from merging.files.checkpoints.write import write_checkpoint
from merging.files.data.bundled import load_dataset
from merging.landscape import evaluate
from merging.models.zoo.families import (
    FAMILIES,
    FamilyRecipe,
    LoadedFamily,
    Member,
    members,
    train_family,
    training_examples,
)
from merging.results import requests
from merging.schema.cards.fusion.table import find_card
from merging.schema.cards.zoo import ASSETS, family_files, read_family_cards

log = logging.getLogger("build_families")


def make_family(recipe: FamilyRecipe) -> None:
    """Train a family and write it with its card."""
    start = time.perf_counter()
    family = train_family(recipe)
    folder = ASSETS / "families" / recipe.name
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    states = (family.base, *family.models, family.joint)
    found = [state for state in states if state is not None]
    for member, params in zip(members(recipe), found, strict=True):
        path = folder / f"{member.name}.safetensors"
        write_checkpoint(path, params, {"family": recipe.name, "model": member.name})
    card = make_card(recipe, family, dict(zip(members(recipe), found, strict=True)))
    (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n", "utf-8")
    log.info("%s: %.0f s", recipe.name, time.perf_counter() - start)


def make_card(
    recipe: FamilyRecipe, family: LoadedFamily, found: dict[Member, Params]
) -> dict[str, Any]:
    """Return what is known of a family, accuracies and fingerprints included."""
    names = list(dict.fromkeys((recipe.data, *recipe.tasks)))
    about = {member: _about(member, params, family, names) for member, params in found.items()}
    return {
        "name": recipe.name,
        "position": list(FAMILIES).index(recipe.name),
        "title": recipe.title,
        "shows": recipe.shows,
        "kind": recipe.kind,
        "config": dict(recipe.config),
        "parameters": sum(p.numel() for p in family.model.parameters()),
        "torch": torch.__version__.split("+")[0],
        "data": [_about_data(name) for name in names],
        "tasks": list(recipe.tasks),
        "base": None if recipe.base is None else about[recipe.base],
        "models": [about[member] for member in recipe.models],
        "joint": None if recipe.joint is None else about[recipe.joint],
    }


def _about_data(name: str) -> dict[str, Any]:
    data = load_dataset(name)
    assert data.validation is not None, f"{name} has no validation split"
    return {
        "name": name,
        "title": data.title,
        "fingerprint": data.fingerprint,
        "classes": data.classes,
        "train": len(data.train),
        "validation": len(data.validation),
        "test": len(data.test),
    }


def _about(
    member: Member, params: Params, family: LoadedFamily, names: list[str]
) -> dict[str, Any]:
    accuracy = {
        name: float(evaluate(family.model, params, load_dataset(name).test).accuracy[0])
        for name in names
    }
    log.info("%s %s: %s", family.name, member.name, [round(a, 3) for a in accuracy.values()])
    return {
        "name": member.name,
        "title": member.title,
        "data": list(member.data),
        "examples": len(training_examples(member)),
        "recipe": asdict(member.recipe),
        "seed": member.seed,
        "epoch": member.epoch,
        "fingerprint": fingerprint(params),
        "accuracy": accuracy,
    }


def look_at(name: str, ask: Ask) -> None:
    """Ask for what the Merge page shows of a family when it is first looked at."""
    family = requests.bundled_family(name)
    ask(requests.SymmetryRequest(family.config))
    ask(requests.ReferencesRequest(family))
    apart = FAMILIES[name].kind == "seeds"
    order = requests.OrderRequest(family, "merge many") if apart else None
    usable = requests.usable_rules(family)
    for rule in requests.FIRST_RULES[FAMILIES[name].kind]:
        if rule in usable:
            wanted = requests.fusion(family, rule, weights=_weights(rule, family), order=order)
            scan = requests.tuning(wanted)
            ask(wanted if scan is None else requests.tuned(wanted, ask(scan)))
    if FAMILIES[name].config["architecture"] != "mlp":
        return  # convolutions are slow: the rest is computed when somebody looks
    ask(requests.MixturesRequest(family, order))
    if family.base:
        for scan in requests.mismatch_scans(family):
            ask(scan)
        ask(requests.switched(family))
        ask(requests.TaskVectorsRequest(family))
        matching = requests.fusion(family, "gradient_matching")
        ask(requests.ImpliedWeightsRequest(matching))
        if family.joint:
            ask(requests.ErrorsRequest(matching))
            ask(requests.RemovalRequest(family, 0, delta=requests.PRIOR_PRECISION))


def _weights(rule: str, family: requests.Family) -> tuple[float, ...]:
    """Return what the page's factor is before anybody moves it; tuning overrides it."""
    scales = find_card(rule).weights == "scales"
    return (requests.FIRST_FACTOR,) * len(family.models) if scales else ()


def main(words: list[str]) -> None:
    """Make the families that are named, or all, or only their results."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    names = [word for word in words if word in FAMILIES] or list(FAMILIES)
    if "results" not in words:
        for name in names:
            make_family(FAMILIES[name])
        read_family_cards.cache_clear()
        family_files.cache_clear()
    for name in names:
        write_results(name, lambda ask, name=name: look_at(name, ask))


if __name__ == "__main__":
    main(sys.argv[1:])
