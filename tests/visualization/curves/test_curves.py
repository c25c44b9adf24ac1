from dataclasses import replace

import numpy as np
import pytest

from merging.schema.errors import UnknownNameError
from merging.schema.records.curve import Curve
from merging.visualization import METHOD_STYLES, NamedCurve, describe_curves, plot_curves


def lines(figure, axis="y"):
    return [t for t in figure.data if t.mode == "lines+markers" and t.name and t.yaxis == axis]


def words(figure):
    return [trace.text[0] for trace in figure.data if trace.mode == "text"]


def test_draws_the_loss_and_the_percentage_of_right_answers(make_curve):
    curve = make_curve()
    figure = plot_curves([NamedCurve("naive", curve)])
    np.testing.assert_allclose(lines(figure, "y")[0].y, curve.loss, rtol=1e-6)
    np.testing.assert_allclose(lines(figure, "y2")[0].y, 100 * curve.accuracy, rtol=1e-6)
    assert figure.layout.yaxis.title.text == "Loss (nats per example)"
    assert figure.layout.yaxis2.title.text == "Accuracy (%)"
    assert {t.y.dtype for t in figure.data if t.mode != "text"} == {np.dtype("float32")}


def test_both_rows_share_the_axis_of_lambda(make_curve):
    figure = plot_curves([NamedCurve("naive", make_curve())])
    assert {trace.xaxis for trace in figure.data} <= {"x", None}
    assert figure.layout.xaxis.ticktext[0] == "Model A"
    assert figure.layout.xaxis.ticktext[-1] == "Model B"
    assert figure.layout.hovermode == "x unified"


def test_colour_and_marker_name_the_method_and_the_dash_the_split(make_curve):
    curves = [
        NamedCurve(method, make_curve(split=split))
        for method in METHOD_STYLES
        for split in ("train", "test")
    ]
    for line, named in zip(lines(plot_curves(curves)), curves, strict=True):
        style = METHOD_STYLES[named.method]
        assert (line.line.color, line.marker.symbol) == (style.light, style.symbol)
        assert line.line.dash == ("solid" if named.curve.split == "train" else "dash")


def test_a_single_split_is_solid(make_curve):
    figure = plot_curves([NamedCurve("weight", make_curve(split="test"))])
    assert lines(figure)[0].line.dash == "solid"


def test_a_second_curve_of_a_method_has_hollow_markers(make_curve):
    curves = [
        NamedCurve("weight", make_curve()),
        NamedCurve("weight", make_curve(0.1), "Weight matching, REPAIR"),
    ]
    first, second = lines(plot_curves(curves))
    assert (first.marker.symbol, second.marker.symbol) == ("triangle-up", "triangle-up-open")
    assert second.name == "Weight matching, REPAIR"


def test_the_band_reaches_two_standard_errors(make_curve):
    curve = make_curve()
    band = next(t for t in plot_curves([NamedCurve("naive", curve)]).data if t.fill == "toself")
    np.testing.assert_allclose(
        band.y[: curve.lams.size], curve.loss + 2 * curve.standard_error(), rtol=1e-5
    )


@pytest.mark.parametrize("baseline", ["endpoints-mean", "linear"])
def test_the_marks_carry_the_numbers_of_the_barrier(make_curve, baseline):
    curves = [NamedCurve("naive", make_curve(0.6)), NamedCurve("weight", make_curve(0.02, seed=1))]
    figure = plot_curves(curves, baseline=baseline)
    for text, named in zip(words(figure), curves, strict=True):
        barrier = named.curve.locate_barrier(baseline)
        value, rest = text.split("barrier ")[1].split(" ± ")
        error, place = rest.split(" at λ = ")
        assert float(value) == pytest.approx(barrier.value, abs=0.5 * 10 ** -len(value[2:]))
        assert float(error) == pytest.approx(barrier.standard_error, abs=0.5e-2)
        assert float(place) == pytest.approx(barrier.lam, abs=0.005)


def test_the_arrow_spans_the_barrier(make_curve):
    curve = make_curve(0.6)
    figure = plot_curves([NamedCurve("naive", curve)])
    arrow = next(t for t in figure.data if "arrow-up" in np.atleast_1d(t.marker.symbol))
    barrier = curve.locate_barrier()
    assert float(arrow.y[1] - arrow.y[0]) == pytest.approx(barrier.value, rel=1e-5)
    np.testing.assert_allclose(arrow.x, barrier.lam, rtol=1e-6)


def test_marks_the_naive_and_the_best_aligned_curve_of_the_test_split(make_curve):
    curves = [
        NamedCurve("naive", make_curve(0.6)),
        NamedCurve("weight", make_curve(0.05)),
        NamedCurve("activation", make_curve(0.01)),
        NamedCurve("activation", make_curve(0.0, split="train")),
    ]
    marked = [t.legendgroup for t in plot_curves(curves).data if t.mode == "text"]
    assert marked == ["Not aligned", "Activation matching"]


def test_marks_can_be_left_out(make_curve):
    assert words(plot_curves([NamedCurve("naive", make_curve())], mark=False)) == []


def test_words_of_two_barriers_stay_apart(make_curve):
    curves = [NamedCurve("naive", make_curve(0.3)), NamedCurve("weight", make_curve(0.25, seed=2))]
    for compact in (False, True):
        figure = plot_curves(curves, compact=compact)
        heights = [float(t.y[0]) for t in figure.data if t.mode == "text"]
        low, high = figure.layout.yaxis.range
        assert abs(heights[0] - heights[1]) > 0.08 * (high - low)
        assert all(low < height < high for height in heights)


def test_a_click_on_the_legend_isolates_a_method_with_its_marks(make_curve):
    curves = [NamedCurve("naive", make_curve()), NamedCurve("weight", make_curve(0.1))]
    figure = plot_curves(curves)
    assert figure.layout.legend.itemclick == "toggleothers"
    assert {t.legendgroup for t in figure.data} == {"Not aligned", "Weight matching"}
    assert len(figure.layout.annotations) == 0


def test_values_that_are_not_finite_leave_gaps_and_are_counted(make_curve):
    curve = make_curve()
    loss = curve.loss.copy()
    loss[[4, 9]] = np.nan, np.inf
    curves = [NamedCurve("naive", replace(curve, loss=loss))]
    figure = plot_curves(curves)
    drawn = lines(figure)[0]
    assert np.flatnonzero(np.isnan(drawn.y)).tolist() == [4, 9]
    assert drawn.connectgaps is False
    band = next(t for t in figure.data if t.fill == "toself")
    assert np.isnan(band.y).sum() == 3
    assert "2 of 25 points not finite" in describe_curves(curves)
    assert "barrier unknown" in describe_curves(curves)


@pytest.mark.parametrize("log_loss", [False, True])
def test_draws_curves_without_one_finite_value(make_curve, log_loss):
    curve = make_curve()
    lost = replace(curve, loss=np.full_like(curve.loss, np.nan))
    figure = plot_curves([NamedCurve("naive", lost)], log_loss=log_loss)
    assert np.isnan(lines(figure)[0].y).all()


def test_draws_no_curves_at_all():
    assert len(plot_curves([]).data) == 0
    assert describe_curves([]) == "No curves yet, 0 points."


def test_tints_the_overshoot_on_both_sides(make_curve):
    inside = plot_curves([NamedCurve("naive", make_curve())])
    beyond = plot_curves([NamedCurve("naive", make_curve(low=-0.25, high=1.25))])
    assert len(inside.layout.shapes) == 0
    assert [(s.x0, s.x1 < s.x0) for s in beyond.layout.shapes] == [(0.0, True), (1.0, False)]


def test_a_logarithmic_axis_holds_every_loss(make_curve):
    curve = make_curve()
    axis = plot_curves([NamedCurve("naive", curve)], log_loss=True).layout.yaxis
    assert axis.type == "log"
    assert axis.range[0] < np.log10(curve.loss.min())
    assert axis.range[1] > np.log10(curve.loss.max())


def test_the_description_has_barrier_and_lowest_accuracy(make_curve):
    curve = make_curve(0.6)
    text = describe_curves([NamedCurve("naive", curve)], "linear")
    barrier = curve.locate_barrier("linear")
    assert text.startswith("Test loss (nats) from model A to model B over 400 examples.")
    assert f"Not aligned: barrier {barrier.value:.2f} ± {barrier.standard_error:.2f}" in text
    assert f"lowest accuracy {100 * curve.accuracy.min():.1f} %" in text
    assert "straight line" in text


def test_an_unknown_method_is_refused(make_curve):
    with pytest.raises(UnknownNameError, match="no style for the method 'wizardry'"):
        plot_curves([NamedCurve("wizardry", make_curve())])


def test_where_numbers_are_predicted_there_is_the_loss_alone():
    lams = np.linspace(0, 1, 3)
    losses = np.arange(12, dtype=np.float32).reshape(3, 4)
    nothing = np.full((3, 4), np.nan, dtype=np.float32)
    curve = Curve(lams, losses.mean(1), nothing.mean(1), losses, nothing, "interpolated", "test")
    figure = plot_curves([NamedCurve("naive", curve)])
    assert "y2" not in {trace.yaxis for trace in figure.data}
    assert figure.layout.yaxis.title.text == "Loss (mean squared error)"
    assert figure.layout.yaxis.domain == (0, 1)
    assert not figure.layout.yaxis2.visible
