"""What the diagonal costs: gradient matching with K-FAC and with the whole Gauss-Newton matrix.

The last part of docs/merging-experiment.md. `make experiment` writes it after the others;
`python assets/experiment_curvature.py` measures and writes it alone. Every run is kept in
`.experiment/` under a name that holds the measuring code, so one that was measured is not measured
again. It needs curvlinops.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from assets.experiment_trained import Trained, gradients, prepare
from merging.files.checkpoints.lazy_params import Params
from merging.files.data.batches import Dataset
from merging.fusion import (
    gauss_newton_curvature,
    kronecker_curvature,
    match_gradients,
    scaled_curvature,
)
from merging.fusion.curvature.operators import Operator
from merging.fusion.explain.mismatch import gradient_mismatch
from merging.models.state_dict import norm, subtract
from merging.models.zoo.families import FAMILIES

log = logging.getLogger("experiment")

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "merging-experiment.md"
KEPT = ROOT / ".experiment"
NAMES = ("mnist-mild", "mnist-harsh", "mnist-classes")
RUNS = 3
NONE, DIAGONAL, LAYERS, WHOLE = "None: task arithmetic", "Diagonal", "K-FAC", "Whole Gauss-Newton"
DELTAS = {
    DIAGONAL: (1e-12, 0.1, 1.0, 10.0),
    LAYERS: (1.0, 10.0, 100.0, 1e3),
    WHOLE: (10.0, 100.0, 1e3),
}
STEPS = {LAYERS: 100, WHOLE: 60}  # every step of the whole matrix passes over all examples
HEADING = "## What the diagonal costs"
TEXT = """{heading}

Written by `python assets/experiment_curvature.py` ({minutes:.0f} minutes of one core), the last
part of `make experiment`; {runs} runs. Gradient matching (Eq. 12) with α = 1 and three curvatures:
the diagonal Fisher information as above, one Kronecker product per layer (K-FAC), and the whole
generalized Gauss-Newton matrix. The last two are solved by conjugate gradients from task
arithmetic's model, in at most {layers} and {whole} steps; *residual* is the largest that was left
of the right-hand side. Where curvature is less than δ, and where steps did not reach, the result is
task arithmetic's. *Distance* is that to the joint model; *seconds* are for curvatures and one
solution, on one core (of the diagonal, which is taken beforehand, for the solution alone).
"""

Row = dict[str, float]


def measure(name: str, run: int) -> dict[str, list[Row]]:
    """Measure every curvature at every δ."""
    trained = prepare(FAMILIES[name], run)
    family = trained.family
    assert family.base is not None
    at_models = gradients(trained, family.models)
    states = list(zip([family.base, *family.models], trained.sets, strict=True))

    def judged(params: Params, **more: float) -> Row:
        return {**_judged(trained, params, at_models), **more}

    found = {NONE: [judged(trained.fused("task_arithmetic"), delta=np.nan)], DIAGONAL: []}
    for delta in DELTAS[DIAGONAL]:
        start = time.process_time()
        params = trained.fused("gradient_matching", delta=delta)
        seconds = time.process_time() - start
        found[DIAGONAL].append(judged(params, delta=delta, seconds=seconds, residual=0.0))
    makers: dict[str, Callable[[Params, Dataset], Operator]] = {
        LAYERS: lambda params, data: kronecker_curvature(
            family.model, params, data.train, seed=run
        ),
        WHOLE: lambda params, data: gauss_newton_curvature(family.model, params, data.train),
    }
    for title, maker in makers.items():
        start = time.process_time()
        curvatures = [
            scaled_curvature(maker(params, data), len(data.train)) for params, data in states
        ]
        for curvature, (params, _) in zip(curvatures, states, strict=True):
            curvature({n: v.double() for n, v in params.items()})  # it is made at its first use
        made = time.process_time() - start
        found[title] = []
        for delta in DELTAS[title]:
            start = time.process_time()
            merged = match_gradients(
                family.models, family.base, curvatures[1:], curvatures[0], delta=delta,
                most_steps=STEPS[title],
            )  # fmt: skip
            seconds = made + time.process_time() - start
            row = judged(merged.params, delta=delta, seconds=seconds, residual=merged.residual)
            found[title].append(row)
    return found


def _judged(trained: Trained, params: Params, at_models: list[Params]) -> Row:
    family = trained.family
    assert family.joint is not None
    at_merged = gradients(trained, [params] * len(family.models))
    return {
        "validation": float(trained.tested(params, "validation").mean()),
        "test": float(trained.tested(params).mean()),
        "mismatch": gradient_mismatch(at_merged, at_models).norm,
        "distance": norm(subtract(params, family.joint)),
    }


def measured(job: tuple[str, int]) -> tuple[dict[str, list[Row]], float]:
    """Return what was measured, now or before, and the processor's seconds that it took."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    name, run = job
    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    path = KEPT / f"curvature-{name}-{run}-{code}.json"
    if path.exists():
        kept = json.loads(path.read_text("utf-8"))
        return kept["rows"], kept["seconds"]
    start = time.process_time()
    rows = measure(name, run)
    taken = time.process_time() - start
    log.info("curvature of %s, run %d: %.0f s", name, run, taken)
    KEPT.mkdir(exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(json.dumps({"rows": rows, "seconds": taken}), "utf-8")
    draft.replace(path)
    return rows, taken


def write_section(found: Mapping[str, Sequence[dict[str, list[Row]]]], seconds: float) -> str:
    """Write the section of the document.

    Args:
        found: By family, what every run gave.
        seconds: That all of it took.

    Returns:
        Its text.
    """
    text = TEXT.format(
        heading=HEADING, minutes=seconds / 60, runs=RUNS, layers=STEPS[LAYERS], whole=STEPS[WHOLE]
    )
    parts = [text.rstrip("\n")]
    for name, runs in found.items():
        parts += [f"**{FAMILIES[name].title}**", _table(runs), _said(runs)]
    return "\n\n".join(parts) + "\n"


def _table(runs: Sequence[dict[str, list[Row]]]) -> str:
    heads = ["curvature", "δ", "validation", "test", "mismatch", "distance", "residual", "seconds"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for title in runs[0]:
        for k in range(len(runs[0][title])):
            lines.append(_line(title, [run[title][k] for run in runs]))
    return "\n".join(lines)


def _line(title: str, rows: Sequence[Row]) -> str:
    delta, solved = rows[0]["delta"], "seconds" in rows[0]
    cells = [title, f"{delta:g}" if solved else ""]
    cells += [_mean([100 * row[split] for row in rows], 1) for split in ("validation", "test")]
    cells += [_mean([row["mismatch"] for row in rows], 0)]
    cells += [_mean([row["distance"] for row in rows], 2)]
    cells.append(f"{max(row['residual'] for row in rows):.0e}" if solved else "")
    cells.append(f"{np.mean([row['seconds'] for row in rows]):.1f}" if solved else "")
    return f"| {' | '.join(cells)} |"


def _said(runs: Sequence[dict[str, list[Row]]]) -> str:
    """Say in a sentence what comes out where δ is chosen by accuracy on validation."""
    best = {
        title: np.array([
            100 * max(run[title], key=lambda row: row["validation"])["test"] for run in runs
        ])
        for title in DELTAS
    }
    words = ", ".join(f"{title} {_mean(values, 1)}" for title, values in best.items())
    ahead = [_mean(best[title] - best[DIAGONAL], 1) for title in (LAYERS, WHOLE)]
    return (
        f"Test accuracy with δ chosen on validation: {words}. Minus the diagonal's: {LAYERS} "
        f"{ahead[0]}, {WHOLE} {ahead[1]} points."
    )


def _mean(values: Sequence[float] | np.ndarray, digits: int) -> str:
    error = np.std(values, ddof=1) / len(values) ** 0.5
    return f"{np.mean(values):.{digits}f} ± {error:.{digits}f}".replace("-", "−")


def main() -> None:
    """Measure what was not measured yet, and put the section at the end of the document."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    jobs = [(name, run) for name in NAMES for run in range(RUNS)]
    workers = int(os.environ.get("JOBS", "1"))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        done = dict(zip(jobs, pool.map(measured, jobs), strict=True))
    found = {name: [done[name, run][0] for run in range(RUNS)] for name in NAMES}
    seconds = sum(taken for _, taken in done.values())
    before = DOCUMENT.read_text("utf-8").split(HEADING)[0].rstrip("\n")
    DOCUMENT.write_text(f"{before}\n\n{write_section(found, seconds)}", "utf-8")


if __name__ == "__main__":
    main()
