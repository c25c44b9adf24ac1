from dataclasses import replace

import numpy as np
import pytest

from merging.schema.errors import UnknownNameError
from merging.visualization import (
    chance_cycles,
    describe_cycles,
    describe_margins,
    describe_permutation,
    describe_similarity,
    expected_cycles,
    plot_cycles,
    plot_margins,
    plot_permutation,
    plot_similarity,
)
from merging.visualization.permutations.cycles import LONGEST_CYCLES


def dots(figure):
    return next(trace for trace in figure.data if trace.name == "units")


def test_a_dot_pairs_a_unit_of_a_with_a_unit_of_b(make_units):
    units = make_units()
    trace = dots(plot_permutation(units))
    np.testing.assert_array_equal(trace.x, np.arange(64))
    np.testing.assert_array_equal(trace.y, units.permutation)
    assert trace.x.dtype == trace.y.dtype == np.int16
    np.testing.assert_allclose(trace.marker.color, units.margin, rtol=1e-6)


@pytest.mark.parametrize("order", ["index", "cycle", "match"])
def test_every_order_tells_the_same_pairs_on_hover(make_units, order):
    units = make_units()
    told = dots(plot_permutation(units, order=order)).customdata
    np.testing.assert_array_equal(units.permutation[told[:, 0].astype(int)], told[:, 1])
    np.testing.assert_allclose(units.matched[told[:, 0].astype(int)], told[:, 2], rtol=1e-6)
    assert sorted(told[:, 0]) == list(range(64))


def test_the_order_by_match_is_the_diagonal_with_the_best_pairs_first(make_units):
    trace = dots(plot_permutation(make_units(), order="match"))
    np.testing.assert_array_equal(trace.x, trace.y)
    assert (np.diff(trace.customdata[:, 2]) <= 0).all()


def test_the_order_by_cycle_stays_beside_the_diagonal(make_units):
    units = make_units()
    trace = dots(plot_permutation(units, order="cycle"))
    steps = trace.y.astype(int) - trace.x
    assert ((steps == 1) | (steps <= 0)).all()
    assert (steps <= 0).sum() == len(units.cycles)


def test_dots_shrink_with_the_number_of_units(make_units):
    sizes = [dots(plot_permutation(make_units(n))).marker.size for n in (16, 300, 2048)]
    assert sizes[0] == 8
    assert sizes[0] > sizes[1] > sizes[2] >= 2


def test_an_unknown_order_is_refused(make_units):
    with pytest.raises(
        UnknownNameError, match="unknown order of units 'size'; choose from 'index'"
    ):
        plot_permutation(make_units(), order="size")


def test_similarities_stay_small_integers_on_one_scale_around_zero(make_units):
    units = make_units()
    figure = plot_similarity(units)
    before, after = figure.data
    assert before.z.dtype == np.int8
    np.testing.assert_array_equal(before.z, units.before)
    np.testing.assert_array_equal(after.z, units.after)
    axis = figure.layout.coloraxis
    assert (axis.cmin, axis.cmax) == (-127, 127)
    shown = [float(word.replace("−", "-")) for word in axis.colorbar.ticktext]
    np.testing.assert_allclose(np.array(axis.colorbar.tickvals) / 127, shown)


def test_the_block_size_is_said_when_a_cell_holds_several_units(make_units):
    small, large = make_units(64), make_units(512)
    assert "2 × 2 units" in plot_similarity(large).layout.coloraxis.colorbar.title.text
    assert "×" not in plot_similarity(small).layout.coloraxis.colorbar.title.text
    assert "2 × 2 units" in describe_similarity(large)


def test_similarities_are_stacked_on_a_phone(make_units):
    layout = plot_similarity(make_units(), compact=True).layout
    assert layout.yaxis.domain[0] > layout.yaxis2.domain[1]


def test_cycles_are_drawn_beside_those_of_chance(make_units):
    units = make_units(512)
    bars, chance = plot_cycles(units).data
    np.testing.assert_array_equal(bars.y, units.cycles[:12])
    assert chance.y[0] == pytest.approx(0.62433 * 512, rel=1e-4)
    assert (
        f"about {expected_cycles(512):.1f} at random"
        in plot_cycles(units).layout.annotations[0].text
    )


def test_the_cycles_of_chance_agree_with_a_simulation():
    rng = np.random.default_rng(0)
    n, totals, counts = 200, np.zeros(3), []
    for _ in range(400):
        permutation, left, lengths = rng.permutation(n), np.ones(n, bool), []
        for start in range(n):
            unit, length = start, 0
            while left[unit]:
                left[unit], unit, length = False, permutation[unit], length + 1
            lengths += [length] if length else []
        totals += sorted([*lengths, 0, 0], reverse=True)[:3]
        counts.append(len(lengths))
    np.testing.assert_allclose(totals / 400 / n, LONGEST_CYCLES[:3], atol=0.03)
    assert np.mean(counts) == pytest.approx(expected_cycles(n), abs=0.4)


def nested(make_units, parents=(4,), fixed=1):
    """The units of 64, in four heads of 16."""
    return replace(make_units(64), parents=parents, fixed_parents=fixed)


def test_the_cycles_of_chance_of_nested_orders_agree_with_a_simulation(make_units):
    rng = np.random.default_rng(0)
    for parents, fixed in (((4,), 1), ((), 4)):
        units, counts, stays = nested(make_units, parents, fixed), [], []
        for _ in range(600):
            owners = rng.permutation(4) if parents else np.arange(4)
            orders = np.stack([rng.permutation(16) for _ in range(4)])
            permutation = (16 * owners[:, None] + orders).ravel()
            left, count = set(range(64)), 0
            while left:
                unit = left.pop()
                count += 1
                while (unit := int(permutation[unit])) in left:
                    left.remove(unit)
            counts.append(count)
            stays.append(int((permutation == np.arange(64)).sum()))
        assert np.mean(counts) == pytest.approx(chance_cycles(units), rel=0.05)
        assert np.mean(stays) == pytest.approx(fixed, abs=0.4)


def test_what_nested_units_belong_to_is_seen_and_said(make_units):
    units = nested(make_units)
    assert units.run == 16
    lines = plot_permutation(units).layout.shapes
    assert sorted({line.x0 for line in lines if line.x0 == line.x1}) == [15.5, 31.5, 47.5]
    assert len(plot_permutation(units, order="match").layout.shapes) == 0
    assert len(plot_similarity(units).layout.shapes) == 2 * len(lines)
    assert len(plot_permutation(make_units(64)).layout.shapes) == 0
    assert "4 × 16" in describe_permutation(units)
    assert f"4 × 16 units has about {chance_cycles(units):.1f} cycles" in describe_cycles(units)
    assert len(plot_cycles(units).data[1].x) == 0


def test_the_histogram_counts_every_margin_and_splits_at_zero(make_units):
    units = make_units(256)
    figure = plot_margins(units)
    bars = figure.data[0]
    assert bars.y.sum() == 256
    below = int((units.margin < 0).sum())
    assert bars.y[bars.x < 0].sum() == below
    assert figure.layout.annotations[0].text.startswith(f"{below} of 256 units below 0")


def test_descriptions_have_the_numbers(make_units):
    units = make_units(512)
    moved = 512 - units.fixed_points
    assert f"512 units of fc1: {moved} moved" in describe_permutation(units)
    assert f"{np.median(units.margin):.2f}" in describe_permutation(units)
    assert f"{len(units.cycles)} cycles, the longest of {units.cycles[0]} units" in describe_cycles(
        units
    )
    assert "about 6.8 cycles" in describe_cycles(units)
    assert f"{int((units.margin < 0).sum())} units below 0" in describe_margins(units)
    assert f"{units.matched.mean():.2f}" in describe_similarity(units)
