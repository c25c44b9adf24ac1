"""The document that `make experiment` writes, and the sentences in it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from assets import experiment, experiment_report
from assets.experiment_curvature import DELTAS, HEADING, NONE, write_section
from assets.experiment_run import Run
from merging.models.zoo.families import FAMILIES
from merging.schema.cards.zoo import ASSETS

DOCUMENT = ASSETS.parent / "docs" / "merging-experiment.md"


def made_up(seed: int):
    """A run in which gradient matching is at 80 % and task arithmetic at 60 %, tuned at 70 %."""
    run = Run(["base data", "task"])
    rng = np.random.default_rng(seed)

    def near(value: float) -> np.ndarray:
        return np.full(2, value) + 0.01 * rng.standard_normal()

    run.references = {"Base": near(0.5), "Joint model": near(0.9)}
    run.rules = {
        "Task arithmetic, α = 1": near(0.6),
        "Task arithmetic, α tuned": near(0.7),
        "Gradient matching, α = 1": near(0.8),
    }
    run.chosen = {"Task arithmetic, α tuned": "α = 0.3"}
    run.sweeps = {("task arithmetic", a): near(1 - a) for a in (0.1, 0.5, 0.9)}
    run.mismatches = {key: key[1] for key in run.sweeps}
    return run


def test_the_findings_say_which_rule_wins():
    (text,) = experiment_report.findings("mnist-mild", [made_up(seed) for seed in range(3)])
    assert "the best merge is Gradient matching, α = 1 with " in text
    assert "rank correlation 1.00 ± 0.00" in text
    assert "(3 runs)" in text


def test_the_error_is_that_of_the_mean_over_runs():
    assert experiment_report._ci(np.array([1.0, 2.0, 3.0]), 2) == "2.00 ± 0.58"
    assert experiment_report._pct(np.array([np.nan])) == "–"


def test_the_greedy_soup_leaves_out_what_spoils_it():
    found = experiment.compare_soups(FAMILIES["mnist-soup"], 0)
    assert found["Greedy soup"] > found["Weighted mean of all"]
    assert found["Best model on validation"] >= found["Mean over the models"]


def test_what_the_diagonal_costs_is_said_at_the_delta_that_validation_chose():
    plain = {"mismatch": 5.0, "distance": 1.0}

    def run(shift: float) -> dict:
        found = {NONE: [{**plain, "delta": np.nan, "validation": 0.5, "test": 0.5}]}
        for gain, (title, deltas) in enumerate(DELTAS.items()):
            found[title] = [
                {**plain, "delta": delta, "residual": 1e-3, "seconds": 2.0,
                 # The best on validation is not the best on test.
                 "validation": 0.8 if k == 1 else 0.7,
                 "test": 0.6 + gain / 10 + shift if k == 1 else 0.99}
                for k, delta in enumerate(deltas)
            ]  # fmt: skip
        return found

    text = write_section({"mnist-mild": [run(0.0), run(0.01), run(0.02)]}, 120.0)
    assert text.startswith(HEADING)
    assert "Diagonal 61.0 ± 0.6, K-FAC 71.0 ± 0.6, Whole Gauss-Newton 81.0 ± 0.6" in text
    assert "K-FAC 10.0 ± 0.0, Whole Gauss-Newton 20.0 ± 0.0 points" in text
    assert (
        "| None: task arithmetic |  | 50.0 ± 0.0 | 50.0 ± 0.0 | 5 ± 0 | 1.00 ± 0.00 |  |  |" in text
    )
    assert "nan" not in text


def test_the_document_is_of_all_families_and_has_no_number_missing():
    text = DOCUMENT.read_text("utf-8")
    assert [name for name in FAMILIES if f"`{name}`" not in text] == []
    assert "nan" not in text
    assert "## What the diagonal costs" in text


@pytest.mark.parametrize("name", ["experiment", "experiment_curvature"])
def test_a_script_starts_from_any_folder(name, tmp_path):
    code = f"import runpy; runpy.run_path({str(ASSETS / name)!r} + '.py', run_name='not main')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
