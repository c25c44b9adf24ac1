"""Four networks from four seeds, made one in every way there is; test loss and accuracy on digits.

`python benchmarks/run.py many` gives the table of docs/merging-many-models.md. Means and standard
deviations are over repetitions, each with four other networks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

import merging
from merging.files.checkpoints.lazy_params import Params
from merging.files.data.batches import Dataset
from merging.files.data.bundled import load_dataset
from merging.fusion import distill, fuse_by_transport, zip_models
from merging.landscape.evaluate.evaluation import evaluate
from merging.landscape.evaluate.losses import score
from merging.landscape.statistics.repair import corrected, unit_statistics
from merging.models.architectures.registry import build_model
from merging.models.state_dict import combine
from merging.models.zoo.training import Recipe, train
from merging.symmetry.spec import PermutationSpec

CONFIG = {"architecture": "mlp", "widths": [64, 256, 256, 256, 10]}
RECIPE = Recipe("adam", 1e-3, 40, 100)
COUNT, REPETITIONS = 4, 3
KINDS = ("first", "merge many", "cycle consistent")

State = Mapping[str, Tensor]


@dataclass
class Table:
    """Loss, accuracy, share of J and seconds, by way and repetition."""

    rows: dict[str, list[tuple[float, float, float, float]]] = field(default_factory=dict)
    cycles: list[float] = field(default_factory=list)

    def add(self, way: str, scores: Sequence[float], share: float, seconds: float) -> None:
        """Note the figures of one repetition."""
        self.rows.setdefault(way, []).append((scores[0], scores[1], share, seconds))

    def lines(self) -> Iterator[str]:
        """Yield the table in Markdown."""
        yield "| merge | test loss | test accuracy | J, share of the most | seconds |"
        yield "|---|---|---|---|---|"
        for way, found in self.rows.items():
            (loss, right, share, seconds), spread = np.mean(found, 0), np.std(found, 0, ddof=1)
            closeness = "–" if np.isnan(share) else f"{share:.3f}"
            yield (
                f"| {way} | {loss:.3f} ± {spread[0]:.3f} | {right:.1f} ± {spread[1]:.1f} % | "
                f"{closeness} | {seconds:.1f} |"
            )
        error, spread = np.mean(self.cycles), np.std(self.cycles, ddof=1)
        yield f"cycle error of pairs: {100 * error:.0f} ± {100 * spread:.0f} %"


def measure() -> Iterator[str]:
    """Yield the lines of the table."""
    data, model = load_dataset("digits"), build_model(CONFIG, seed=0)
    spec = merging.find_symmetry(model, (data.test.inputs[:2],))
    table = Table()
    for repetition in range(REPETITIONS):
        seeds = range(10 * repetition, 10 * repetition + COUNT)
        states = [train(CONFIG, RECIPE, data.train, seed=seed) for seed in seeds]
        _references(table, model, states, data)
        mean = _aligned(table, spec, model, states, data)
        _others(table, spec, model, states, data, mean)
    yield from table.lines()


def _references(table: Table, model: nn.Module, states: Sequence[State], data: Dataset) -> None:
    own = np.mean([_scores(model, state, data) for state in states], 0)
    table.add("one of the four, on average", own, np.nan, 0)
    answers = [_outputs(model, state, data.test.inputs).softmax(1) for state in states]
    logits = torch.stack(answers).mean(0).log()
    losses, right = score(logits, data.test.targets)
    scores = float(losses.mean()), 100 * float(right.double().mean())
    table.add("ensemble of the four", scores, np.nan, 0)
    table.add("mean, each in its own order", _scores(model, _mean(states), data), np.nan, 0)


def _aligned(
    table: Table, spec: PermutationSpec, model: nn.Module, states: Sequence[State], data: Dataset
) -> Params:
    """Align by every kind, and note the means; return the last kind's."""
    doubles = [{name: value.double() for name, value in state.items()} for state in states]
    most = (COUNT - 1) / 2 * sum(float((v**2).sum()) for s in doubles for v in s.values())
    mean: Params = {}
    for kind in KINDS:
        cycles = {"cycle_models": COUNT if kind == KINDS[-1] else 0}
        found = merging.align_many(spec, model, states, kind, options=cycles)
        moved = [
            merging.permute(spec, perms, state)
            for perms, state in zip(found.permutations, states, strict=True)
        ]
        mean, share = _mean(moved), found.objective[-1] / most
        table.add(f'mean, `"{kind}"`', _scores(model, mean, data), share, found.seconds)
        fixed = _repaired(model, mean, moved, data)
        table.add(f'mean, `"{kind}"`, REPAIR', _scores(model, fixed, data), np.nan, found.seconds)
    table.cycles.append(found.cycle_error.pairwise)
    return mean


def _others(
    table: Table,
    spec: PermutationSpec,
    model: nn.Module,
    states: Sequence[State],
    data: Dataset,
    mean: Params,
) -> None:
    start = time.perf_counter()
    taught = distill(model, mean, states, data.train).params
    seconds = time.perf_counter() - start
    way = 'mean, `"cycle consistent"`, distilled'
    table.add(way, _scores(model, taught, data), np.nan, seconds)
    zipped = zip_models(spec, model, states, data.train)
    table.add("zipped", _scores(model, zipped.heads[0], data), np.nan, zipped.seconds)
    for features in ("weights", "activations"):
        carried = fuse_by_transport(
            [model] * COUNT, states, [spec] * COUNT, data.train, options={"features": features}
        )
        scores = _scores(model, carried.params, data)
        table.add(f"transport to the first, by {features}", scores, np.nan, carried.seconds)


def _repaired(model: nn.Module, mean: State, moved: Sequence[State], data: Dataset) -> Params:
    """Apply REPAIR with the mean of the statistics of all models."""
    found = [unit_statistics(model, state, data.train) for state in moved]
    goals = {
        node: (
            torch.stack([f[node][0] for f in found]).mean(0),
            torch.stack([f[node][1] for f in found]).mean(0),
        )
        for node in found[0]
    }
    return corrected(model, mean, goals, data.train, shift=True)


def _mean(states: Sequence[State]) -> Params:
    return combine(states, [1 / len(states)] * len(states))


def _scores(model: nn.Module, params: State, data: Dataset) -> tuple[float, float]:
    found = evaluate(model, params, data.test)
    return float(found.loss[0]), 100 * float(found.accuracy[0])


def _outputs(model: nn.Module, params: State, x: Tensor) -> Tensor:
    with torch.no_grad():
        outputs: Tensor = torch.func.functional_call(model, dict(params), (x,))
    return outputs
