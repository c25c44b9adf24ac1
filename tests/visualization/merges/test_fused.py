"""Figures of fused models: rules by tasks, coefficients, reliability."""

import math

import numpy as np
import pytest

from merging.schema.records.scores import MergedScore, Scan, TaskScore
from merging.visualization import (
    NamedScan,
    NamedScore,
    describe_reliability,
    describe_rule_scores,
    describe_scans,
    plot_reliability,
    plot_rule_scores,
    plot_scans,
    sorted_scores,
)

BINS = {"confidences": (0.4, math.nan, 0.9), "rights": (0.5, math.nan, 0.8), "counts": (10, 0, 30)}
TASKS = ["rotated", "inverted"]


def score(name, *accuracies, reference=False, title=None):
    tasks = tuple(TaskScore(40, 1 - a, 0.1, a, 0.05, 0.1, **BINS) for a in accuracies)
    return NamedScore(title or name.capitalize(), reference, MergedScore(name, tasks))


ROWS = [
    score("average", 0.5, 0.7),
    score("joint", 0.9, 0.8, reference=True),
    score("ties", 0.8, 0.6),
    score("base", 0.3, 0.2, reference=True),
]


def test_references_come_first_and_each_kind_is_sorted():
    assert [row.score.name for row in sorted_scores(ROWS)] == ["joint", "base", "ties", "average"]


def test_the_grid_holds_the_mean_and_every_task_in_per_cent():
    figure = plot_rule_scores(ROWS, TASKS)
    wanted = [[85, 90, 80], [25, 30, 20], [70, 80, 60], [60, 50, 70]]
    np.testing.assert_allclose(figure.data[0].z, wanted, rtol=1e-6)
    assert list(figure.layout.xaxis.ticktext) == ["<b>Mean</b>", *TASKS]
    assert figure.layout.yaxis.ticktext[2] == "Ties"
    written = sorted(text for trace in figure.data[1:] for text in trace.text)
    assert written == sorted(f"{value:.1f}" for row in wanted for value in row)


def test_a_line_parts_references_from_merges():
    assert plot_rule_scores(ROWS, TASKS).layout.shapes[0].y0 == 1.5
    assert not plot_rule_scores(ROWS[::2], TASKS).layout.shapes


def test_where_nothing_is_right_or_wrong_the_loss_is_compared():
    tasks = (TaskScore(40, 0.25, 0.01, math.nan, math.nan),)
    row = NamedScore("Weighted mean", False, MergedScore("average", tasks))
    assert float(plot_rule_scores([row], ["all"]).data[0].z[0][0]) == pytest.approx(0.25)
    assert (
        "Mean loss (squared error) over 1 task. Merged: Weighted mean 0.250."
        in describe_rule_scores([row], ["all"])
    )


def test_the_description_has_every_mean():
    text = describe_rule_scores(ROWS, TASKS)
    assert "Mean accuracy over 2 tasks." in text
    assert "For comparison: Joint 85.0 %, Base 25.0 %." in text
    assert "Merged: Ties 70.0 %, Average 60.0 %." in text


def test_the_error_of_a_mean_is_that_of_independent_tasks():
    assert ROWS[0].score.accuracy_error == pytest.approx(math.hypot(0.05, 0.05) / 2)


def scan(rule, values, accuracy):
    table = np.array(accuracy)[:, None] * np.ones((1, 2))
    nan = np.full(len(values), np.nan)
    return Scan(rule, np.array(values), 1 - table, table, 0.1 * table, nan, "validation")


SCANS = [
    NamedScan("Task arithmetic", "weights", scan("ta", [0.1, 0.3, 1.0], [0.4, 0.45, 0.2])),
    NamedScan("Gradient matching", "weights", scan("gm", [0.1, 0.3, 1.0], [0.3, 0.4, 0.46])),
]


def test_the_best_value_of_every_scan_is_ringed():
    rings = [t for t in plot_scans(SCANS).data if t.marker.symbol == "circle-open"]
    assert [float(ring.x[0]) for ring in rings] == pytest.approx([0.3, 1.0])


def test_scans_are_told_apart_by_colour_marker_and_dash():
    lines = [trace for trace in plot_scans(SCANS, dark=True).data if trace.name]
    for attribute in ("color", "dash"):
        assert len({getattr(line.line, attribute) for line in lines}) == 2
    assert len({line.marker.symbol for line in lines}) == 2


def test_level_lines_that_are_unknown_are_left_out():
    figure = plot_scans(SCANS, [("Joint", 0.8), ("Base", math.nan)])
    assert [shape.y0 for shape in figure.layout.shapes] == [80]


def test_scans_are_described_with_their_best_and_their_ends():
    assert "Task arithmetic: best 45.0 % at 0.3, 40.0 % at 0.1 and 20.0 % at 1." in describe_scans(
        SCANS
    )


def test_without_right_answers_the_best_value_has_the_lowest_loss():
    table = np.full((2, 1), np.nan)
    found = Scan(
        "ta", np.array([0.1, 0.2]), np.array([[2.0], [1.0]]), table, table, table[:, 0], ""
    )
    assert found.best == 0.2


def test_reliability_pools_the_tasks_and_leaves_empty_bins_out():
    figure = plot_reliability(ROWS[:2])
    line = figure.data[1]
    np.testing.assert_allclose(line.x, [0.4, 0.9], rtol=1e-6)
    np.testing.assert_allclose(line.y, [0.5, 0.8], rtol=1e-6)
    assert line.customdata.tolist() == [20, 60]
    assert "Average 10.0 %, Joint 10.0 %" in describe_reliability(ROWS[:2])


def test_scores_survive_their_json_form():
    import json
    from dataclasses import asdict

    before = ROWS[0].score
    after = MergedScore.from_meta(json.loads(json.dumps(asdict(before))))
    assert repr(after) == repr(before)


@pytest.mark.parametrize("compact", [False, True])
def test_nothing_to_show_is_a_valid_picture(compact):
    assert plot_rule_scores([], [], compact=compact).data
    assert not plot_scans([], compact=compact).data
    assert describe_scans([]) == "No rules yet, 0 lines."
    assert describe_rule_scores([], []) == "No models yet, 0 rows."
