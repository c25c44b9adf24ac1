import math

import numpy as np
import pytest

from merging.schema.errors import UnknownNameError
from merging.schema.records.alignment import Alignment
from merging.schema.records.curve import Curve
from merging.schema.records.surface import Surface

# Five positions, four examples: few enough to do by hand.
LOSSES = np.array([
    [0.0, 1.0, 2.0, 1.0],
    [1.0, 1.0, 3.0, 1.0],
    [2.0, 3.0, 3.0, 2.0],
    [4.0, 1.0, 2.0, 1.0],
    [3.0, 1.0, 2.0, 2.0],
])
RIGHT = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]], dtype=bool)


def curve(losses=LOSSES, right=RIGHT, lams=None):
    lams = np.linspace(0, 1, len(losses)) if lams is None else np.asarray(lams)
    return Curve(lams, losses.mean(1), right.mean(1), losses.astype(np.float32), right)


def test_the_barrier_above_the_mean_of_the_ends_is_that_by_hand():
    # Means 1, 1.5, 2.5, 2, 2; the ends' mean is 1.5; the top is 2.5 at the middle.
    found = curve().locate_barrier()
    assert (found.value, found.lam) == (1.0, 0.5)
    assert (found.baseline, found.metric) == ("endpoints-mean", "loss")
    assert curve().barrier() == 1.0


def test_the_barrier_above_the_line_is_that_by_hand():
    # The line is 1, 1.25, 1.5, 1.75, 2; rises 0, .25, 1, .25, 0.
    found = curve().locate_barrier("linear")
    assert (found.value, found.lam) == (1.0, 0.5)
    tilted = curve(LOSSES + np.array([0, 0, 0, 1.0, 0])[:, None])
    assert tilted.barrier("linear") == pytest.approx(1.25)
    assert tilted.locate_barrier("linear").lam == 0.75
    assert tilted.barrier("endpoints-mean") == pytest.approx(1.5)


def test_the_accuracy_barrier_is_the_deepest_drop():
    # Accuracies 1, .75, .25, .5, .5; the ends' mean .75; the line 1, .875, .75, .625, .5.
    assert curve().barrier(metric="accuracy") == pytest.approx(0.5)
    assert curve().barrier("linear", "accuracy") == pytest.approx(0.5)
    assert curve().locate_barrier("linear", "accuracy").lam == 0.5


def test_the_standard_error_of_a_barrier_is_that_of_paired_examples():
    rises = LOSSES[2] - (LOSSES[0] + LOSSES[4]) / 2
    by_hand = math.sqrt(sum((r - rises.mean()) ** 2 for r in rises) / 3) / 2
    assert curve().locate_barrier().standard_error == pytest.approx(by_hand)
    drops = (RIGHT[0] * 1.0 + RIGHT[4]) / 2 - RIGHT[2]
    by_hand = math.sqrt(sum((d - drops.mean()) ** 2 for d in drops) / 3) / 2
    found = curve().locate_barrier(metric="accuracy")
    assert found.standard_error == pytest.approx(by_hand)


def test_standard_errors_are_sample_deviations_over_the_root_of_the_number():
    for metric, values in ("loss", LOSSES), ("accuracy", RIGHT.astype(float)):
        by_hand = [
            math.sqrt(sum((v - row.mean()) ** 2 for v in row) / (len(row) - 1) / len(row))
            for row in values
        ]
        np.testing.assert_allclose(curve().standard_error(metric), by_hand)
    assert curve().examples == 4


def test_positions_beyond_the_models_do_not_count():
    lams = [-0.5, 0.0, 0.5, 1.0, 1.5]
    wild = LOSSES.copy()
    wild[[0, 4]] = 100.0
    found = curve(wild, lams=lams).locate_barrier()
    # Ends are 1.5 and 2, the middle 2.5.
    assert (found.value, found.lam) == (pytest.approx(0.75), 0.5)
    assert curve(wild, lams=lams).barrier("linear") == pytest.approx(0.75)


def test_a_dip_is_no_barrier():
    assert curve(LOSSES[[0, 0, 0]] - np.array([[0], [0.5], [0]])).barrier() == 0.0


def test_unequal_ends_leave_a_barrier_above_their_mean_but_none_above_the_line():
    line = np.linspace(0, 1, 5)[:, None] + np.zeros((5, 4))
    assert curve(line).barrier() == pytest.approx(0.5)
    assert curve(line).locate_barrier().lam == 1.0
    assert curve(line).barrier("linear") == pytest.approx(0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_reported_and_not_hidden(bad):
    losses = LOSSES.copy()
    losses[3, 0] = bad
    found = curve(losses).locate_barrier()
    assert found.lam == 0.75
    assert not np.isfinite(found.value)
    losses = LOSSES.copy()
    losses[0, 0] = np.nan
    assert math.isnan(curve(losses).barrier())


def test_the_nearest_position_is_read():
    assert curve().at(0.5) == (2.5, 0.25)
    assert curve().at(0.6) == (2.5, 0.25)
    assert curve().at(2.0) == (2.0, 0.5)


def test_an_unknown_baseline_or_metric_is_refused():
    with pytest.raises(UnknownNameError, match="unknown barrier baseline 'mean'; choose from"):
        curve().barrier("mean")
    with pytest.raises(UnknownNameError, match="unknown metric 'error'; choose from"):
        curve().barrier(metric="error")
    with pytest.raises(UnknownNameError, match="unknown metric 'error'"):
        curve().standard_error("error")


def test_a_surface_counts_what_is_not_finite_among_what_is_evaluated():
    loss = np.array([[1.0, np.nan], [np.inf, np.nan]])
    evaluated = np.array([[True, True], [True, False]])
    axis = np.arange(2.0)
    surface = Surface(axis, axis, loss, loss, loss, evaluated)
    assert surface.non_finite == 2
    assert not surface.complete
    assert Surface(axis, axis, loss, loss, loss, np.ones((2, 2), bool)).complete


def test_an_alignment_counts_its_units_and_those_that_moved():
    perms = {"p": np.array([1, 0, 2]), "q": np.array([0, 1])}
    alignment = Alignment("weight", perms, (1.0,), "objective", True, False, 0.1)
    assert (alignment.units, alignment.units_moved) == (5, 2)
    nested = {"p": np.array([1, 0]), "q": np.array([[0, 1, 2], [2, 1, 0]])}
    alignment = Alignment("weight", nested, (1.0,), "objective", True, False, 0.1)
    assert (alignment.units, alignment.units_moved) == (8, 4)
