"""Trained paths, samples and simplexes as figures and in words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from merging.landscape import simplex_points
from merging.schema.records.scores import Mixtures
from merging.schema.records.surface import PlanePath, PlanePoint
from merging.schema.records.swag import SwagSamples
from merging.visualization import (
    METHOD_STYLES,
    NamedCurve,
    NamedSurface,
    describe_curves,
    describe_simplex,
    describe_surfaces,
    plot_curves,
    plot_simplex,
    plot_surface_3d,
    plot_surfaces,
    shares_words,
    simplex_of_shares,
)
from merging.visualization.surfaces.panels import lay_out
from merging.visualization.theme import PATH_STYLE


def named(figure, name):
    return [trace for trace in figure.data if trace.name == name]


def texts(figure):
    return [annotation.text for annotation in figure.layout.annotations]


@pytest.fixture
def curves(make_curve):
    path = make_curve(0.01)
    return [
        NamedCurve("naive", make_curve()),
        NamedCurve("naive", path, "Chain path, not aligned", on_path=True),
        NamedCurve("weight", path, "Chain path, weight matching", on_path=True),
    ]


@pytest.mark.parametrize("dark", [False, True])
def test_curves_on_paths_have_a_colour_of_their_own_and_the_hollow_marker_of_the_method(
    curves, dark
):
    figure = plot_curves(curves, dark=dark)
    for curve in curves[1:]:
        line = named(figure, curve.label)[0]
        assert line.line.color == PATH_STYLE.colour(dark)
        assert line.marker.symbol == f"{METHOD_STYLES[curve.method].symbol}-open"
    assert named(figure, "Not aligned")[0].line.color == METHOD_STYLES["naive"].colour(dark)


def test_curves_on_paths_have_neither_band_nor_mark(curves):
    figure = plot_curves(curves)
    titles = [t.legendgroup for t in figure.data if t.fill == "toself" or t.mode == "text"]
    assert set(titles) == {"Not aligned"}


def test_the_axis_says_that_paths_have_positions(curves):
    assert "on paths" in plot_curves(curves).layout.xaxis.title.text
    assert "path" not in plot_curves(curves[:1]).layout.xaxis.title.text


def test_words_name_the_paths(curves):
    assert "Chain path, weight matching: barrier" in describe_curves(curves)


@pytest.fixture
def through_bend(make_surface):
    surface = make_surface()
    t = np.linspace(0, 1, 41)
    path = PlanePath("bezier", 20 * t, 8 * t * (1 - t), np.zeros(41))
    points = (*surface.points[:2], PlanePoint("bend", 10.0, 4.0))
    return replace(surface, points=points, paths=(path,))


@pytest.mark.parametrize(("off", "dash"), [(0.0, "solid"), (3.0, "dot")])
def test_a_path_is_dotted_where_it_is_only_projected(through_bend, off, dash):
    (path,) = through_bend.paths
    moved = replace(through_bend, paths=(replace(path, residual=np.full(41, off)),))
    panel = [NamedSurface("Bézier path", "naive", moved)]
    (line,) = named(plot_surfaces(panel), "trained path")
    assert line.line.dash == dash
    assert line.line.color == PATH_STYLE.light
    np.testing.assert_allclose(line.x, path.x / 20, rtol=1e-6)
    np.testing.assert_allclose(line.customdata, off / 20, rtol=1e-6)
    words = describe_surfaces(panel)
    assert ("at most 0.150 off the plane" if off else "is drawn, in the plane") in words


def test_a_bend_is_named_and_marked_in_two_and_three_dimensions(through_bend):
    panel = [NamedSurface("Bézier path", "naive", through_bend)]
    figure = plot_surfaces(panel)
    assert "bend" in texts(figure)
    assert named(figure, "bend")[0].marker.symbol == PATH_STYLE.symbol
    assert named(plot_surface_3d(through_bend), "bend")
    assert not named(figure, "same function")


def test_flat_panels_are_stacked_and_others_stand_in_a_row(make_surface):
    surface = make_surface()
    flat = replace(surface, y=0.3 * surface.y)
    for surfaces, stacked in (([flat, flat], True), ([surface, surface], False)):
        first, second = lay_out(surfaces, shared=True, compact=False).panels
        assert (first.y_domain != second.y_domain) == stacked
        assert (first.x_domain == second.x_domain) == stacked


def test_a_low_panel_has_its_words_below(make_surface):
    surface = make_surface()
    flat = replace(surface, y=0.2 * surface.y)
    for compact in (False, True):
        layout = plot_surfaces([NamedSurface("a", "naive", flat)] * 2, compact=compact).layout
        assert "both axes" in layout.xaxis.title.text
        assert not layout.yaxis.title.text


def test_samples_lie_where_they_project_to_in_the_colour_of_their_own_loss(make_surface):
    points = (PlanePoint("sample 1", 1.0, 2.0, 4.0), PlanePoint("sample 2", -1.0, 0.0, 6.0))
    loss, accuracy = np.array([0.1, 1.0]), np.array([0.9, 0.5])
    samples = SwagSamples("A", points, loss, accuracy, PlanePoint("mean", 0.0, 1.0), 20, 3.0)
    panel = [NamedSurface("Weights", "weight", make_surface(), (samples,))]
    figure = plot_surfaces(panel)
    (drawn,) = named(figure, "SWAG samples around A")
    np.testing.assert_allclose(drawn.x, [0.05, -0.05])
    np.testing.assert_allclose(drawn.marker.color, np.log10(loss), atol=1e-6)
    np.testing.assert_allclose(drawn.customdata[:, 2], [0.2, 0.3], rtol=1e-6)
    assert drawn.marker.coloraxis == "coloraxis"
    words = describe_surfaces(panel)
    assert "2 SWAG samples around A: loss from 0.1 to 1 nats, about 0.25 off the plane" in words
    (drawn,) = named(plot_surfaces(panel, metric="accuracy"), "SWAG samples around A")
    np.testing.assert_allclose(drawn.marker.color, 100 * accuracy, rtol=1e-6)


def places(simplex):
    return simplex.weights @ np.array([[0, 0], [1, 0], [0.5, np.sqrt(0.75)]])


def test_a_triangle_has_the_colours_of_its_points(make_simplex):
    simplex = make_simplex(4)
    heat = named(plot_simplex(simplex), "simplex")[0]
    for (x, y), loss in zip(places(simplex), simplex.loss, strict=True):
        row, column = np.abs(heat.y - y).argmin(), np.abs(heat.x - x).argmin()
        near = heat.z[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        assert np.nanmin(np.abs(near - np.log10(loss))) < 0.05


def test_colours_between_points_are_linear(make_simplex):
    simplex = make_simplex(4)
    loss = 10 ** (simplex.weights @ np.array([0.1, 0.5, 0.9]))
    heat = named(plot_simplex(replace(simplex, loss=loss)), "simplex")[0]
    x, y = np.meshgrid(heat.x, heat.y)
    third = y / np.sqrt(0.75)
    second = x - third / 2
    expected = 0.1 * (1 - second - third) + 0.5 * second + 0.9 * third
    known = np.isfinite(heat.z)
    assert 0.45 < known.mean() < 0.55
    np.testing.assert_allclose(heat.z[known], expected[known], atol=1e-4)


def test_a_triangle_in_the_middle_of_its_evaluation_shows_its_finest_complete_level(make_simplex):
    fine, coarse = make_simplex(8), make_simplex(4)
    new = np.flatnonzero((fine.weights * 4 % 1).any(1))[:7]
    mixed = replace(
        coarse,
        weights=np.vstack([coarse.weights, fine.weights[new]]),
        loss=np.append(coarse.loss, fine.loss[new] + 5),
        accuracy=np.append(coarse.accuracy, fine.accuracy[new]),
        standard_error=np.append(coarse.standard_error, fine.standard_error[new]),
        resolution=8,
    )
    heats = [named(plot_simplex(s), "simplex")[0].z for s in (coarse, mixed)]
    np.testing.assert_allclose(heats[0], heats[1])


def test_nothing_is_drawn_inside_while_no_level_is_complete(make_simplex):
    heat = named(plot_simplex(make_simplex(4, known=2)), "simplex")[0]
    assert not np.isfinite(heat.z).any()


def test_four_models_have_four_triangles_with_their_names(make_simplex):
    simplex = make_simplex(4, ("A", "B", "weight", "bend"))
    figure = plot_simplex(simplex, titles=["A", "B", "aligned", "bend"])
    assert len(named(figure, "simplex")) == 4
    said = " ".join(texts(figure))
    assert [said.count(f"<b>{name}</b>") for name in ("A", "B", "aligned", "bend")] == [3] * 4


def test_a_grid_of_shares_is_a_triangle_of_means_over_the_tasks():
    weights = simplex_points(20, 3)  # of a side that no simplex of requests has
    loss = np.stack([weights @ [0.1, 0.5, 0.9], weights @ [0.3, 0.3, 0.3]], axis=1)
    accuracy = np.stack([weights @ [1.0, 0.5, 0.0]] * 2, axis=1)
    simplex = simplex_of_shares(Mixtures(20, weights, loss, accuracy, "validation"), "XYZ")
    assert simplex.corner("Y") == pytest.approx(0.4)
    assert simplex.corner("Y", "accuracy") == pytest.approx(0.5)
    figure = plot_simplex(simplex, metric="accuracy")
    heat = named(figure, "simplex")[0]
    assert 0.45 < np.isfinite(heat.z).mean() < 0.55
    assert {"<b>X</b><br>100.0 %", "<b>Y</b><br>50.0 %"} <= set(texts(figure))
    words = describe_simplex(simplex)
    assert "Validation loss (nats) of 231 weighted means of 3 models" in words
    assert "Lowest 0.2 at 100 % X; highest 0.6" in words


def test_words_say_the_corners_and_the_lowest_mixture(make_simplex):
    words = describe_simplex(make_simplex(4), ["A", "B", "π(B)"])
    assert "Test loss (nats) of 15 weighted means of 3 models" in words
    assert "Corners: A 0.1; B 0.1; π(B) 1.1" in words
    assert "Lowest 0.1 at 100 % B; highest 1.1" in words
    assert "0 points" in describe_simplex(make_simplex(4, known=0))
    assert shares_words([0.5, 0.0, 0.5], ["A", "B", "C"]) == "50 % A + 50 % C"
