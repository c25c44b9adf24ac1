import numpy as np
import pytest

from merging.schema.errors import UnknownNameError
from merging.visualization import METHOD_STYLES, describe_layers, plot_layers


def test_bars_hold_the_values_before_in_grey_and_after_in_the_methods_colour(rows):
    before, after = plot_layers(rows, method="activation").data
    np.testing.assert_allclose(before.x, [9.5, 12.0, 4.0])
    np.testing.assert_allclose(after.x, [5.25, 6.0, 3.0])
    assert before.marker.color == METHOD_STYLES["naive"].light
    assert after.marker.color == METHOD_STYLES["activation"].light


def test_long_names_lose_their_middle_on_the_axis_and_are_whole_on_hover(rows):
    figure = plot_layers(rows)
    label = figure.layout.yaxis.ticktext[0]
    assert "…" in label
    assert len(label) <= 28
    assert figure.data[0].customdata[0][0] == rows[0].layer


@pytest.mark.parametrize("quantity", ["barrier", "variance"])
def test_layers_without_a_value_are_left_out_and_said(rows, quantity):
    figure = plot_layers(rows, quantity=quantity)
    assert figure.data[0].x.size == 2
    assert "1 layer without this value left out" in figure.layout.annotations[0].text
    assert "1 layer without this value left out" in describe_layers(rows, quantity=quantity)


def test_variances_start_at_one_on_a_logarithmic_axis(rows):
    figure = plot_layers(rows, quantity="variance")
    assert figure.layout.xaxis.type == "log"
    assert figure.layout.shapes[0].x0 == 1
    for trace, ends in zip(figure.data, ([0.4, 0.2], [0.95, 1.25]), strict=True):
        np.testing.assert_allclose(np.array(trace.base, float) + trace.x, ends, rtol=1e-6)


@pytest.mark.parametrize("quantity", ["distance", "cosine", "barrier", "variance"])
def test_every_quantity_has_an_axis_title_and_a_description_with_numbers(rows, quantity):
    assert plot_layers(rows, quantity=quantity).layout.xaxis.title.text
    assert any(letter.isdigit() for letter in describe_layers(rows, quantity=quantity))


def test_the_description_has_means_and_the_largest_change(rows):
    text = describe_layers(rows)
    assert "on average 8.5 before and 4.75 after weight matching" in text
    assert "fc1.weight, from 12 to 6" in text


def test_no_rows_are_a_valid_picture():
    assert plot_layers([]).data[0].x.size == 0
    assert describe_layers([]) == "No layer has a distance."


def test_an_unknown_quantity_is_refused(rows):
    with pytest.raises(UnknownNameError, match="unknown quantity of layers 'size'"):
        plot_layers(rows, quantity="size")
