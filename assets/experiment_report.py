"""What `experiment.py` measured, as docs/merging-experiment.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from assets.experiment_convex import PRIOR, Convex
from assets.experiment_run import Run
from merging.fusion.explain.mismatch import TensorError
from merging.models.zoo.families import FAMILIES

HEAD = """# Merging, measured on the bundled families

Written by `make experiment` ({minutes:.0f} minutes of one core) from what it measured; do not
edit.

The experiment of Daheim et al. (2024, arXiv 2310.12808) at a size that runs here. Each family of
tasks is a base trained on half of MNIST's bundled training digits, models fine-tuned from it on the
other half, changed in one way each (or on scikit-learn's digits), and the joint model: the base
fine-tuned on all of these data, its own included. Every run trains all of them from other seeds;
run 0 is the bundled one. Numbers are accuracies on test splits in percent, mean ± standard error
over runs. *Mean* is over the base's data and all tasks, as in the paper. Coefficients said to be
tuned were chosen by that mean on the validation splits, which no model was trained on; nothing was
chosen on test splits. Curvature is the diagonal Fisher information with sampled labels on training
data, on the scale of the sum; α is the same for all tasks, and δ is 1e-12 unless it says otherwise.
For the convolutional family, gradients are taken and coefficients chosen on 300 examples of each
set, and it has fewer scales and runs.
"""

NOTES = """
How to read the parts of a family:

- **Every rule.** References are no merges: an ensemble keeps all models, and the joint model needs
  all data.
- **Scale.** Accuracy and mismatch of gradients, `‖Σₜ ∇ℓₜ(merged) − ∇ℓₜ(θₜ)‖` on training data with
  summed losses, over scales of a rule. The rank correlation (Spearman) is between mismatch and mean
  test error over all merges of the table, and TIES, Fisher averaging and Model Stock beside them.
- **One formula.** Gradient matching with other H₀, Hₜ and α. The last column is the largest
  difference of any entry from the rule of that name, where curvature of the tasks is not zero.
- **One task removed.** The joint model, fine-tuned once more on one task, and that task taken out
  (Eq. 13–14). *Clamped* is the share of entries where `H₀ − α Hₜ` falls below ε, which stands in
  its place. Tuned: the setting with the lowest accuracy on the task on validation, among those that
  cost the other sets at most 3 points there.
- **Errors by tensor** (Eq. 10 for task arithmetic, and the same for Eq. 12; run 0, δ = 1). Measured
  is the length of joint − merged; mismatch is what gradients (for Eq. 12, less Taylor's expansion)
  explain; residual is the rest; the bound is the triangle inequality's over tasks. Residuals are as
  large as the mismatch because networks stop early and no penalty of Eq. 8 held them near the
  base: the equation's premise does not hold for them. The last section has models where it does.
"""

CONVEX = """## Where the equation's premise holds

Softmax regression (one linear layer, float64) on the same data, with the penalties of Eq. 7 to 9
(δ = {prior:g}, diagonal H₀ and Hₜ, exact at each model), trained to the minimum. Mismatch explains
the whole error, tensor by tensor. The last line is what Taylor's expansion (Eq. 11) leaves of it,
with the diagonal of the curvature, which gradient matching uses, and with all of it.
"""


def write_report(
    tasks: Mapping[str, Sequence[Run]],
    soups: Mapping[str, Sequence[Mapping[str, float]]],
    convex: Mapping[str, Convex],
    removed: Mapping[str, str],
    seconds: float,
) -> str:
    """Write the document.

    Args:
        tasks: Runs of every family of tasks.
        soups: Test accuracies of every family of models of one task, run by run.
        convex: What came out where the theory holds, by family.
        removed: The title of the task that was removed from each family.
        seconds: How long all of it took.

    Returns:
        Its text.
    """
    lines = [HEAD.format(minutes=seconds / 60), "## What came out", ""]
    lines += [f"- {sentence}" for name, runs in tasks.items() for sentence in findings(name, runs)]
    lines.append(NOTES)
    for name, runs in tasks.items():
        lines += _family(name, runs, removed[name])
    if soups:
        lines += _soups(soups)
    if convex:
        lines.append(CONVEX.format(prior=PRIOR))
    for name, found in convex.items():
        lines += [f"**{FAMILIES[name].title}**", "", *_convex(found)]
    return "\n".join(lines).rstrip("\n") + "\n"


def findings(name: str, runs: Sequence[Run]) -> list[str]:
    """Say in sentences what the tables of a family show, whichever rule wins."""
    title = FAMILIES[name].title
    joint, base = (_mean_of(runs, "references", key) for key in ("Joint model", "Base"))
    rules = {rule: _mean_of(runs, "rules", rule) for rule in runs[0].rules}
    best = max(rules, key=lambda rule: rules[rule].mean())
    arithmetic, matching = rules["Task arithmetic, α = 1"], rules["Gradient matching, α = 1"]
    tuned = rules["Task arithmetic, α tuned"]
    correlations = np.array([_correlation(run) for run in runs])
    ahead = _ci(100 * (matching - tuned))
    return [
        f"**{title}** ({len(runs)} runs): joint {_pct(joint)}, base {_pct(base)}; the best "
        f"merge is {best} with {_pct(rules[best])}. Without tuning (α = 1), gradient matching has "
        f"{_pct(matching)} and task arithmetic {_pct(arithmetic)}; task arithmetic with α "
        f"chosen on validation has {_pct(tuned)}, and untuned gradient matching minus that is "
        f"{ahead} points. Mismatch and test error have rank correlation {_ci(correlations, 2)}."
    ]


def _family(name: str, runs: Sequence[Run], removed: str) -> list[str]:
    recipe = FAMILIES[name]
    sets = runs[0].sets
    lines = [f"## {recipe.title} (`{name}`)", "", f"{recipe.shows} {len(runs)} runs.", ""]
    lines += ["**Every rule**", ""]
    rows = [
        [title, *_columns([run.references[title] for run in runs])] for title in runs[0].references
    ]
    rows += [
        [f"{title}{_choices(runs, title)}", *_columns([run.rules[title] for run in runs])]
        for title in runs[0].rules
    ]
    lines += _table(["", "mean", *sets], rows)
    lines += ["**Scale**", "", *_scales(runs)]
    lines += ["**One formula**", "", *_switches(runs)]
    lines += [f"**One task removed: {removed}**", "", *_removals(runs)]
    lines += ["**Errors by tensor**", "", *_errors(runs[0].errors)]
    lines += ["**Task vectors and implied weights** (run 0)", "", *_vectors(runs[0])]
    return lines


def _choices(runs: Sequence[Run], title: str, prefix: str = "") -> str:
    key = prefix + title
    if key not in runs[0].chosen:
        return ""
    return f" ({'; '.join(sorted({run.chosen[key] for run in runs}))})"


def _scales(runs: Sequence[Run]) -> list[str]:
    scales = [scale for rule, scale in runs[0].sweeps if rule == "task arithmetic"]
    rows = []
    for alpha in scales:
        row = [f"{alpha:g}"]
        for rule in ("task arithmetic", "gradient matching"):
            row.append(_pct(np.array([run.sweeps[rule, alpha].mean() for run in runs])))
            row.append(_ci(np.array([run.mismatches[rule, alpha] for run in runs]), 0))
        rows.append(row)
    heads = [
        "α", "task arithmetic", "its mismatch", "gradient matching", "its mismatch"
    ]  # fmt: skip
    spreads = {
        rule: np.array([np.ptp([run.sweeps[rule, a].mean() for a in scales]) for run in runs])
        for rule in ("task arithmetic", "gradient matching")
    }
    correlations = np.array([_correlation(run) for run in runs])
    return [
        *_table(heads, rows),
        f"Best minus worst over these α: task arithmetic {_pct(spreads['task arithmetic'])}, "
        f"gradient matching {_pct(spreads['gradient matching'])} points. Rank correlation of "
        f"mismatch and test error over {len(runs[0].sweeps)} merges: {_ci(correlations, 2)}.",
        "",
    ]


def _correlation(run: Run) -> float:
    keys = list(run.sweeps)
    errors = [1 - run.sweeps[key].mean() for key in keys]
    return float(spearmanr([run.mismatches[key] for key in keys], errors).statistic)


def _switches(runs: Sequence[Run]) -> list[str]:
    rows = []
    for title in runs[0].switches:
        tests = np.array([run.switches[title][0].mean() for run in runs])
        rows.append([title, _pct(tests), f"{max(run.switches[title][1] for run in runs):.0e}"])
    return _table(["setting of Eq. 12", "mean", "largest difference"], rows)


def _removals(runs: Sequence[Run]) -> list[str]:
    rows = []
    for title in runs[0].removals:
        task, others, clamped = np.array([run.removals[title] for run in runs]).T
        share = "" if np.isnan(clamped).all() else f"{_pct(clamped)}"
        named = f"{title}{_choices(runs, title, 'removal: ')}"
        rows.append([named, _pct(task), _pct(others), share])
    return _table(["", "the task", "mean of the others", "clamped"], rows)


def _convex(found: Convex) -> list[str]:
    rows = [
        [title, f"{distance:.2f}", f"{mismatch:.0f}", f"{100 * accuracy:.1f}"]
        for title, (distance, mismatch, accuracy) in found.rules.items()
    ]
    heads = ["", "distance to joint", "mismatch", "mean accuracy"]
    whole, diagonal, full = found.remainders
    return [
        *_table(heads, rows),
        *_errors(found.errors),
        f"Change of gradients from the models to the joint one: {whole:.0f}; what is left of it "
        f"after Taylor's expansion with diagonal curvature: {diagonal:.0f}; with full curvature: "
        f"{full:.0f}.",
        "",
    ]


def _errors(errors: Mapping[str, Mapping[str, TensorError]]) -> list[str]:
    rows = [
        [
            f"`{name}`",
            *(
                _digits(value)
                for found in errors.values()
                for value in (
                    found[name].measured, found[name].predicted, found[name].residual,
                    found[name].bound,
                )
            ),
        ]
        for name in next(iter(errors.values()))
    ]  # fmt: skip
    heads = [f"{part}, {short}" for short in ("TA", "GM") for part in _PARTS]
    return _table(["tensor", *heads], rows)


_PARTS = ("measured", "mismatch", "residual", "bound")


def _vectors(run: Run) -> list[str]:
    found: Any = run.vectors
    rows = []
    for k, (title, quartiles) in enumerate(run.weights):
        cosines = np.delete(found.cosines[k], k)
        conflicts = np.delete(found.conflicts[k], k)
        rows.append([
            title, f"{found.norms[k]:.2f}", f"{cosines.min():.2f} to {cosines.max():.2f}",
            f"{100 * conflicts.min():.0f} to {100 * conflicts.max():.0f} %",
            ", ".join(f"{quartile:.2f}" for quartile in quartiles),
        ])  # fmt: skip
    heads = [
        "", "length", "cosine with others", "opposite signs with others",
        "implied weights: quartiles",
    ]  # fmt: skip
    return [
        *_table(heads, rows),
        f"Of the entries that any model changed, {100 * found.any_conflict:.0f} % were raised by "
        "one and lowered by another.",
        "",
    ]


def _soups(soups: Mapping[str, Sequence[Mapping[str, float]]]) -> list[str]:
    titles = list(dict.fromkeys(title for runs in soups.values() for title in runs[0]))
    rows = [
        [
            title,
            *(
                _pct(np.array([run[title] for run in runs])) if title in runs[0] else ""
                for runs in soups.values()
            ),
        ]
        for title in titles
    ]
    heads = [f"{FAMILIES[name].title} (`{name}`)" for name in soups]
    counts = sorted({len(runs) for runs in soups.values()})
    return [
        "## Models of one task", "",
        f"{' or '.join(map(str, counts))} runs. Without alignment; seeds lie in different basins.",
        "", *_table(["", *heads], rows),
    ]  # fmt: skip


def _columns(tests: Sequence[np.ndarray]) -> list[str]:
    stack = np.stack(tests)
    return [_pct(_row_mean(stack)), *(_pct(column) for column in stack.T)]


def _row_mean(stack: np.ndarray) -> np.ndarray:
    return np.array([row[~np.isnan(row)].mean() for row in stack])


def _mean_of(runs: Sequence[Run], kind: str, title: str) -> np.ndarray:
    return np.array([getattr(run, kind)[title].mean() for run in runs])


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(heads)} |", "|---" * len(heads) + "|",
        *(f"| {' | '.join(row)} |" for row in rows), "",
    ]  # fmt: skip


def _pct(values: np.ndarray) -> str:
    return "–" if np.isnan(values).all() else _ci(100 * values)


def _ci(values: np.ndarray, digits: int = 1) -> str:
    """Write mean and standard error."""
    error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
    return f"{values.mean():.{digits}f} ± {error:.{digits}f}".replace("-", "−")


def _digits(value: float) -> str:
    return f"{value:.2f}" if 0.005 <= value < 1000 or value == 0 else f"{value:.1e}"
