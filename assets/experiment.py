"""Run the experiment of Daheim et al. (2024) on the bundled families, and write it up.

The document is docs/merging-experiment.md. Run `make experiment`, or
`python assets/experiment.py mnist-harsh` to see one family's part on the screen. It is beside
`build_families.py` because it trains the same families again, with other seeds, and like `build.py`
writes a document of what it measured; `benchmarks/` is for ratios against other implementations.
`JOBS=4 make experiment` measures four runs at a time, each in a process of one thread.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from assets.experiment_convex import measure_convex
from assets.experiment_report import write_report
from assets.experiment_run import Run
from assets.experiment_trained import Trained, accuracy, curvature, gradients, is_slow, prepare
from merging.files.checkpoints.lazy_params import Params
from merging.files.data.batches import Batches, concatenate
from merging.fusion import fuse, remove_task
from merging.fusion.explain.mismatch import decompose_error, gradient_mismatch
from merging.fusion.explain.task_vectors import compare_task_vectors, weight_histogram
from merging.fusion.problem import FusionProblem
from merging.models.state_dict import scale
from merging.models.zoo.families import (
    FAMILIES,
    FamilyRecipe,
    LoadedFamily,
    load_family,
    train_family,
)
from merging.models.zoo.training import train

log = logging.getLogger("experiment")

ALPHAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
FEW_ALPHAS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
TIES_SCALES = (0.3, 0.5, 0.7, 1.0, 1.5)
DROPS = (0.5, 0.9)
DELTAS = (1e-12, 1e-2, 1e-1, 1.0, 10.0)
REMOVED = {
    "mnist-mild": "Noisy", "mnist-harsh": "Inverted", "mnist-classes": "Digits 8 and 9",
    "mnist-mild-cnn": "Noisy",
}  # fmt: skip
NEGATED = (0.3, 0.5, 1.0, 1.5, 2.0, 3.0)
TAKEN_OUT = (0.1, 0.3, 0.5, 1.0, 2.0)
LEAST = (1e-12, 1.0, 10.0, 100.0)
SPARED = 0.03  # what the other sets may lose on validation where a setting is chosen
CONVEX = ("mnist-mild", "mnist-classes")
RUNS = 4
# Convolutions are slow.
CNN_RUNS = 3
DECOMPOSED_DELTA = 1.0
_STEEP = 1e-6


def measure(recipe: FamilyRecipe, run: int) -> Run:
    """Measure everything about one training of one family of tasks."""
    t = prepare(recipe, run)
    found = Run(["base data", *(member.title for member in recipe.models)])
    compare_references(t, found)
    points = compare_rules(t, found)
    measure_mismatches(t, found, points)
    flip_switches(t, found)
    remove_one(t, found)
    explain(t, found)
    return found


def compare_references(t: Trained, found: Run) -> None:
    """Test what is no merge."""
    family = t.family
    assert family.base is not None
    assert family.joint is not None
    tests = [t.tested(params) for params in family.models]
    own = [np.nan, *(test[k + 1] for k, test in enumerate(tests))]
    found.references["Base"] = t.tested(family.base)
    found.references["Each model on its own task"] = np.array(own)
    found.references["Mean over the models"] = np.mean(tests, axis=0)
    found.references["Ensemble of the models"] = np.array([
        accuracy(family, family.models, data.test) for data in t.sets
    ])
    found.references["Joint model"] = t.tested(family.joint)


def compare_rules(t: Trained, found: Run) -> dict[tuple[str, float], Params]:
    """Test every rule, coefficients fixed or chosen on validation; give the sweeps' merges."""
    alphas = FEW_ALPHAS if is_slow(t.recipe) else ALPHAS
    fixed: dict[str, Params] = {
        "Weighted mean (AM)": t.fused("average"),
        "Task arithmetic, α = 0.3": t.fused("task_arithmetic", 0.3),
        "Task arithmetic, α = 1": t.fused("task_arithmetic", 1.0),
        "TIES, scale 1": t.fused("ties", scale=1.0),
        "DARE, α = 0.3, drop 0.9": t.fused("dare", 0.3, drop=0.9),
        "Model Stock": t.fused("model_stock"),
        "Fisher averaging (FA)": t.fused("fisher"),
        "Gradient matching, α = 1": t.fused("gradient_matching"),
    }
    for title, params in fixed.items():
        found.rules[title] = t.tested(params)
    grids: dict[str, dict[str, Params]] = {
        "Task arithmetic, α tuned": {f"α = {a:g}": t.fused("task_arithmetic", a) for a in alphas},
        "TIES, scale tuned": {f"scale {s:g}": t.fused("ties", scale=s) for s in TIES_SCALES},
        "DARE, α and drop tuned": {
            f"α = {a:g}, drop {p:g}": t.fused("dare", a, drop=p)
            for a in FEW_ALPHAS[:4]
            for p in DROPS
        },
        "Gradient matching, α tuned": {
            f"α = {a:g}": t.fused("gradient_matching", a) for a in alphas
        },
        "Gradient matching, α = 1, δ tuned": {
            f"δ = {d:g}": t.fused("gradient_matching", delta=d) for d in DELTAS
        },
    }
    for title, grid in grids.items():
        best = max(grid, key=lambda name: t.tested(grid[name], "validation").mean())
        found.chosen[title] = best
        found.rules[title] = t.tested(grid[best])
    points = {
        ("task arithmetic", a): grids["Task arithmetic, α tuned"][f"α = {a:g}"] for a in alphas
    }
    points |= {
        ("gradient matching", a): grids["Gradient matching, α tuned"][f"α = {a:g}"] for a in alphas
    }
    points |= {("TIES", s): grids["TIES, scale tuned"][f"scale {s:g}"] for s in TIES_SCALES}
    points[("Fisher averaging", 1.0)] = fixed["Fisher averaging (FA)"]
    points[("Model Stock", 1.0)] = fixed["Model Stock"]
    found.sweeps = {key: t.tested(params) for key, params in points.items()}
    return points


def measure_mismatches(t: Trained, found: Run, points: Mapping[tuple[str, float], Params]) -> None:
    """Measure the mismatch of gradients of every merge of the sweeps."""
    at_models = gradients(t, t.family.models)
    for key, params in points.items():
        at_merged = gradients(t, [params] * len(t.family.models))
        found.mismatches[key] = gradient_mismatch(at_merged, at_models).norm


@dataclass(frozen=True)
class Switch:
    """One setting of the one formula.

    Attributes:
        alpha: α of every task.
        fishers: Hₜ of every task.
        base_fisher: H₀, less δ.
        delta: What is added to H₀.
        rule: The rule that the formula becomes.
    """

    alpha: float
    fishers: list[Params]
    base_fisher: Params
    delta: float
    rule: str


def switches(t: Trained) -> dict[str, Switch]:
    """Return the settings of H₀, Hₜ and α that make other rules of Eq. 12."""
    zeros = [scale(fisher, 0.0) for fisher in t.fishers]
    least = 1e-12
    return {
        "AM: H₀ = 1, Hₜ = 0, α = 1/T": Switch(
            alpha=1 / len(zeros), fishers=zeros, base_fisher=zeros[0], delta=1.0, rule="average"
        ),
        "TA: H₀ = 1, Hₜ = 0, α = 1": Switch(
            alpha=1.0, fishers=zeros, base_fisher=zeros[0], delta=1.0, rule="task_arithmetic"
        ),
        "FA: H₀ = 0, Hₜ = Fₜ, α = 1": Switch(
            alpha=1.0, fishers=t.fishers, base_fisher=zeros[0], delta=least, rule="fisher"
        ),
        "H₀ = F₀ + δ, Hₜ = 0, α = 1": Switch(
            alpha=1.0,
            fishers=zeros,
            base_fisher=t.base_fisher,
            delta=least,
            rule="task_arithmetic",
        ),
        "ours: H₀ = F₀ + δ, Hₜ = Fₜ, α = 1": Switch(
            alpha=1.0,
            fishers=t.fishers,
            base_fisher=t.base_fisher,
            delta=least,
            rule="gradient_matching",
        ),
    }


def flip_switches(t: Trained, found: Run) -> None:
    """Turn the one formula (Eq. 12) into the others by H_0, H_t and α."""
    family = t.family
    for title, switch in switches(t).items():
        params = fuse(
            "gradient_matching", models=family.models, base=family.base,
            weights=[switch.alpha] * len(family.models), fishers=switch.fishers,
            base_fisher=switch.base_fisher, options={"delta": switch.delta},
        )  # fmt: skip
        other = t.fused(switch.rule)
        steep = {  # where all curvatures vanish, FA takes the mean and Eq. 12 adds the steps up
            name: torch.stack([f[name] for f in t.fishers]).amax(0) > _STEEP for name in params
        }
        difference = max(_largest((params[n] - other[n])[steep[n]]) for n in params)
        found.switches[title] = (t.tested(params), difference)


def _largest(values: Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 0.0


def remove_one(t: Trained, found: Run) -> None:
    """Take one task out of the joint model again (Eq. 13 and 14), and train without it."""
    family, recipe = t.family, t.recipe
    assert family.joint is not None
    assert recipe.joint is not None
    k = [member.title for member in recipe.models].index(REMOVED[recipe.name])
    task, member = family.tasks[k], recipe.models[k]
    seed = recipe.joint.seed + 30 + 100 * t.seed
    tuned = train(recipe.config, member.recipe, task.train, seed=seed, start=family.joint)
    others = [d.train for d in t.sets if d is not task]
    without = train(
        recipe.config, recipe.joint.recipe, concatenate(others, "train"), seed=seed + 1,
        start=family.base,
    )  # fmt: skip
    everything = concatenate([d.train for d in t.sets], "train")
    h0 = curvature(family, family.joint, everything, t.seed)
    ht = curvature(family, tuned, task.train, t.seed)

    def accuracies(params: Params, split: str = "test") -> tuple[float, float]:
        found = t.tested(params, split)
        return float(found[k + 1]), float(np.delete(found, k + 1).mean())

    found.removals["Joint model, nothing removed"] = (*accuracies(family.joint), np.nan)
    found.removals["Trained without the task"] = (*accuracies(without), np.nan)
    negated = {
        f"α = {a:g}": (
            fuse("task_arithmetic", models=[tuned], base=family.joint, weights=[-a]),
            np.nan,
        )
        for a in NEGATED
    }
    taken = {
        f"α = {a:g}, ε = {e:g}": remove_task(family.joint, tuned, h0, ht, weight=a, least=e)
        for a in TAKEN_OUT
        for e in LEAST
    }
    shown = [("Task arithmetic", negated, "α = 1")]
    shown += [("Gradient matching", taken, f"α = 1, ε = {e:g}") for e in LEAST[:3]]
    for rule, settings, name in shown:
        found.removals[f"{rule}, {name}"] = (*accuracies(settings[name][0]), settings[name][1])
    if is_slow(recipe):
        return
    floor = accuracies(family.joint, "validation")[1] - SPARED
    for rule, settings in (("Task arithmetic", negated), ("Gradient matching", taken)):
        tried = {name: accuracies(params, "validation") for name, (params, _) in settings.items()}
        # Of what spares the others, what forgets most; if nothing does, what spares them most.
        best = min(tried, key=lambda n: (max(0.0, floor - tried[n][1]), tried[n][0]))
        title = f"{rule}, tuned"
        found.chosen[f"removal: {title}"] = best
        found.removals[title] = (*accuracies(settings[best][0]), settings[best][1])


def explain(t: Trained, found: Run) -> None:
    """Explain the merges: errors by tensor, implied weights, and task vectors."""
    family = t.family
    assert family.base is not None
    assert family.joint is not None
    at_joint = gradients(t, [family.joint] * len(family.models))
    at_models = gradients(t, family.models)
    for title, curvatures in (("Task arithmetic", None), ("Gradient matching", t.fishers)):
        found.errors[title] = decompose_error(
            base=family.base, models=family.models, joint=family.joint,
            base_curvature=t.base_fisher, at_joint=at_joint, at_models=at_models,
            curvatures=curvatures, delta=DECOMPOSED_DELTA,
        )  # fmt: skip
    problem = FusionProblem(
        models=family.models,
        base=family.base,
        weights=[1.0] * len(family.models),
        fishers=t.fishers,
        base_fisher=t.base_fisher,
    )
    histogram = weight_histogram(problem)
    titles = [member.title for member in t.recipe.models]
    found.weights = list(zip(titles, histogram.quartiles, strict=True))
    found.vectors = compare_task_vectors(family.base, family.models)


def compare_soups(recipe: FamilyRecipe, run: int) -> dict[str, float]:
    """Return the test accuracy of whatever can be made of models of one task."""
    family = load_family(recipe.name) if run == 0 else train_family(recipe, run=run)
    data, models = family.tasks[0], family.models
    assert data.validation is not None

    def test(params: Params) -> float:
        return accuracy(family, [params], data.test)

    chosen = [accuracy(family, [params], data.validation) for params in models]
    found = {
        "Mean over the models": float(np.mean([test(params) for params in models])),
        "Last model": test(models[-1]),
        "Best model on validation": test(models[int(np.argmax(chosen))]),
        "Weighted mean of all": test(fuse("average", models=models)),
        "Mean of the last four": test(fuse("average", models=models[-4:])),
        "Greedy soup": test(_greedy(family, models, chosen, data.validation)),
        "Ensemble": accuracy(family, models, data.test),
    }
    if family.base is not None:
        found["Base"] = test(family.base)
        found["Model Stock"] = test(fuse("model_stock", models=models, base=family.base))
    return found


def _greedy(
    family: LoadedFamily, models: Sequence[Params], chosen: Sequence[float], validation: Batches
) -> Params:
    """Take in, from the best model on, whatever makes the mean better on validation."""
    order = sorted(range(len(models)), key=lambda k: -chosen[k])
    taken, best = [models[order[0]]], chosen[order[0]]
    for k in order[1:]:
        mean = fuse("average", models=[*taken, models[k]])
        reached = accuracy(family, [mean], validation)
        if reached > best:
            taken, best = [*taken, models[k]], reached
    return fuse("average", models=taken)


def main(words: list[str]) -> None:
    """Run the experiment on the families that are named, or on all, and write the document."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    names = words or list(FAMILIES)
    jobs = [
        (part, name, run)
        for name in sorted(names, key=lambda name: not is_slow(FAMILIES[name]))  # the longest first
        for part, run in _parts(name)
    ]
    workers = int(os.environ.get("JOBS", "1"))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        done = dict(zip(jobs, pool.map(_timed, jobs), strict=True))
    found: dict[str, dict[str, list[Any]]] = {part: {} for part in PARTS}
    for name in names:
        for part, run in _parts(name):
            found[part].setdefault(name, []).append(done[part, name, run][0])
    convex = {name: result for name, (result,) in found["convex"].items()}
    seconds = sum(taken for _, taken in done.values())
    text = write_report(found["tasks"], found["soups"], convex, REMOVED, seconds)
    if words:
        log.info("%s", text)
    else:
        path = Path(__file__).resolve().parents[1] / "docs" / "merging-experiment.md"
        path.write_text(text, "utf-8")


PARTS: Mapping[str, Callable[[FamilyRecipe, int], Any]] = {
    "tasks": measure,
    "soups": compare_soups,
    "convex": lambda recipe, _: measure_convex(recipe),
}


def _parts(name: str) -> list[tuple[str, int]]:
    """Return what is measured of a family: parts of the experiment, and numbers of runs."""
    kind = "tasks" if FAMILIES[name].kind == "tasks" else "soups"
    parts = [(kind, run) for run in range(CNN_RUNS if is_slow(FAMILIES[name]) else RUNS)]
    return parts + ([("convex", 0)] if name in CONVEX else [])


def _timed(job: tuple[str, str, int]) -> tuple[Any, float]:
    """Measure in a process of one thread; return that and the processor's seconds it took."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    part, name, run = job
    start = time.process_time()
    result = PARTS[part](FAMILIES[name], run)
    taken = time.process_time() - start
    log.info("%s of %s, run %d: %.0f s", part, name, run, taken)
    return result, taken


if __name__ == "__main__":
    main(sys.argv[1:])
