from dataclasses import replace

import numpy as np
import pytest

from merging.schema.records.surface import PlanePoint
from merging.visualization import NamedSurface, describe_surfaces, plot_surface_3d, plot_surfaces
from merging.visualization.surfaces.grid import is_rough, shown_part, thinned
from merging.visualization.surfaces.labels import Label, place_labels
from merging.visualization.surfaces.panels import lay_out
from merging.visualization.ticks import even_values, round_values


def traces(figure, kind):
    return [trace for trace in figure.data if trace.type == kind]


def named(figure, name):
    return [trace for trace in figure.data if trace.name == name]


def texts(figure):
    return " | ".join(annotation.text for annotation in figure.layout.annotations)


@pytest.fixture
def surface(make_surface):
    return make_surface()


def test_colours_show_the_logarithm_of_the_loss(surface):
    figure = plot_surfaces([NamedSurface("Weights", "weight", surface)])
    heat = traces(figure, "heatmap")[0]
    np.testing.assert_allclose(heat.z, np.log10(surface.loss), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(heat.x, surface.x / surface.scale, rtol=1e-5, atol=1e-7)
    assert heat.z.dtype == np.float32
    bar = figure.layout.coloraxis.colorbar
    for value, word in zip(bar.tickvals, bar.ticktext, strict=True):
        assert value == pytest.approx(np.log10(float(word.strip("> "))), abs=0.02)


def test_accuracy_is_shown_in_per_cent_with_dark_blue_for_good(surface):
    panel = [NamedSurface("Weights", "weight", surface)]
    figure = plot_surfaces(panel, metric="accuracy")
    np.testing.assert_allclose(traces(figure, "heatmap")[0].z, 100 * surface.accuracy, rtol=1e-5)
    loss_colours = plot_surfaces(panel).layout.coloraxis.colorscale
    assert loss_colours[0][1] == figure.layout.coloraxis.colorscale[-1][1] == "#00224e"


def test_hover_tells_loss_and_accuracy(surface):
    heat = traces(plot_surfaces([NamedSurface("Weights", "weight", surface)]), "heatmap")[0]
    np.testing.assert_allclose(heat.customdata[..., 0], surface.loss, rtol=1e-6)
    np.testing.assert_allclose(heat.customdata[..., 1], 100 * surface.accuracy, rtol=1e-6)


def test_panels_share_a_scale_of_pooled_percentiles(make_surface):
    low, high = make_surface(), make_surface()
    high = replace(high, loss=10 * high.loss)
    figure = plot_surfaces([NamedSurface("a", "weight", low), NamedSurface("b", "naive", high)])
    pooled = np.log10(np.concatenate([low.loss.ravel(), high.loss.ravel()]))
    axis = figure.layout.coloraxis
    np.testing.assert_allclose([axis.cmin, axis.cmax], np.percentile(pooled, [1, 99]))
    assert {heat.coloraxis for heat in traces(figure, "heatmap")} == {"coloraxis"}
    starts = {contour.contours.start for contour in traces(figure, "contour")}
    assert len(starts) == 1


def test_separate_scales_are_announced(make_surface):
    panels = [
        NamedSurface("a", "weight", make_surface()),
        NamedSurface("b", "naive", make_surface()),
    ]
    apart = plot_surfaces(panels, shared_scale=False)
    assert [heat.coloraxis for heat in traces(apart, "heatmap")] == ["coloraxis", "coloraxis2"]
    assert "Scales differ" in texts(apart)
    assert "Scales differ" not in texts(plot_surfaces(panels))


def test_a_cap_ends_the_scale_and_says_so(surface):
    figure = plot_surfaces([NamedSurface("a", "weight", surface)], cap=1.0)
    assert figure.layout.coloraxis.cmax == pytest.approx(0.0)
    assert figure.layout.coloraxis.colorbar.ticktext[-1] == "> 1"


def test_level_lines_are_drawn_on_smooth_surfaces_only(make_surface):
    smooth = plot_surfaces([NamedSurface("a", "weight", make_surface(side=65))])
    noisy = plot_surfaces([NamedSurface("a", "weight", make_surface(side=65, noise=0.8))])
    contour = traces(smooth, "contour")[0]
    assert (contour.contours.coloring, contour.showscale) == ("none", False)
    assert traces(noisy, "contour") == []
    assert "too noisy" in texts(noisy)


@pytest.mark.parametrize("side", [9, 17, 33, 65])
def test_roughness_tells_noise_from_a_smooth_surface_at_every_level(make_surface, side):
    assert not is_rough(np.log10(make_surface(side).loss))
    assert is_rough(np.random.default_rng(0).standard_normal((side, side)))


def test_surfaces_that_are_flat_or_mostly_holes_count_as_rough():
    holes = np.add.outer(np.arange(9.0), np.arange(9.0))
    holes[:2] = np.nan
    assert is_rough(holes)
    assert is_rough(np.ones((9, 9)))


def test_axes_have_equal_units_of_the_distance_from_a_to_b(surface):
    figure = plot_surfaces([NamedSurface("a", "weight", surface)])
    assert figure.layout.yaxis.scaleanchor == "x"
    assert figure.layout.xaxis.title.text == "Distance, in units of ‖B − A‖"
    b = named(figure, "B")[0]
    assert (b.x[0], b.y[0], b.marker.symbol) == (1.0, 0.0, "square")


@pytest.mark.parametrize(
    ("method", "symbol", "colour"),
    [
        ("weight", "triangle-up", "#009E73"),
        ("activation", "star", "#0072B2"),
        ("straight_through", "pentagon", "#D55E00"),
    ],
)
def test_an_aligned_model_wears_its_methods_colours(make_surface, method, symbol, colour):
    figure = plot_surfaces([NamedSurface("a", "naive", make_surface(aligned=method))])
    dot = named(figure, "π(B)")[0]
    assert (dot.marker.symbol, dot.marker.color) == (symbol, colour)
    assert dot.marker.line.color == "#ffffff"


def test_several_aligned_models_are_told_apart_by_name(surface):
    points = (*surface.points, PlanePoint("activation", 8.0, 9.0))
    figure = plot_surfaces([NamedSurface("a", "weight", replace(surface, points=points))])
    assert "π(B), weight matching" in texts(figure)
    assert "π(B), activation matching" in texts(figure)


def test_paths_are_straight_and_the_arrow_from_b_says_same_function(surface):
    figure = plot_surfaces([NamedSurface("a", "weight", surface)])
    path = named(figure, "A to π(B)")[0]
    assert list(zip(path.x, path.y, strict=True)) == [(0.0, 0.0), (0.5, 0.4)]
    bow = named(figure, "same function")[0]
    assert bow.line.dash == "dot"
    assert "same function" in texts(figure)
    chord = np.linspace([bow.x[0], bow.y[0]], [bow.x[-1], bow.y[-1]], bow.x.size)
    assert np.abs(chord - np.stack([bow.x, bow.y], axis=1)).max() > 0.05


def test_a_model_off_the_plane_is_hollow_with_its_distance(make_surface):
    figure = plot_surfaces([NamedSurface("a", "weight", make_surface(residual=0.32))])
    assert named(figure, "π(B)")[0].marker.symbol == "triangle-up-open"
    assert "0.32 off the plane" in texts(figure)
    assert named(figure, "A to π(B)") == []
    assert named(figure, "same function") == []


def test_labels_keep_clear_of_one_another(surface):
    panel = lay_out([surface], shared=True, compact=True).panels[0]
    labels = [Label(word, x, 0.0, 12) for word, x in (("A", 0), ("B", 0.05), ("midpoint", 0.1))]
    scale = panel.pixels / (np.ptp(surface.x) / surface.scale)
    shifts = place_labels(labels, surface, panel)
    boxes = [
        (np.array([label.x * scale, 0]) + shift, label.half)
        for label, shift in zip(labels, shifts, strict=True)
    ]
    for k, (middle, half) in enumerate(boxes):
        for other, other_half in boxes[:k]:
            assert (np.abs(middle - other) >= half + other_half - 1e-9).any()


def test_points_that_are_not_finite_are_crossed_and_counted(surface):
    loss = surface.loss.copy()
    loss[0, :3], loss[-1, -1] = np.nan, np.inf
    panels = [NamedSurface("a", "weight", replace(surface, loss=loss))]
    figure = plot_surfaces(panels)
    assert named(figure, "not finite")[0].x.size == 4
    assert "4 points not finite" in texts(figure)
    assert np.isnan(traces(figure, "heatmap")[0].z).sum() == 4
    assert "4 points not finite" in describe_surfaces(panels)


def test_a_grid_in_the_making_shows_its_finest_complete_level(half_way):
    part = shown_part(half_way)
    assert (part.surface.loss.shape, part.whole, part.finest) == ((17, 17), True, False)
    np.testing.assert_array_equal(part.surface.loss, half_way.loss[::2, ::2])
    figure = plot_surfaces([NamedSurface("a", "weight", half_way)])
    assert traces(figure, "heatmap")[0].z.shape == (17, 17)
    assert len(traces(figure, "contour")) == 1
    assert "coarse grid so far, 17 × 17" in texts(figure)


def test_a_grid_without_a_complete_level_shows_what_there_is(surface):
    evaluated = np.zeros(surface.loss.shape, bool)
    evaluated[:3] = True
    begun = replace(surface, evaluated=evaluated)
    figure = plot_surfaces([NamedSurface("a", "weight", begun)])
    heat = traces(figure, "heatmap")[0]
    np.testing.assert_array_equal(np.isfinite(heat.z), evaluated)
    assert traces(figure, "contour") == []
    assert "still being evaluated" in texts(figure)
    assert all(y <= surface.y[2] / surface.scale + 1e-6 for y in named(figure, "probe")[0].y)


def test_nothing_evaluated_yet_is_a_valid_picture(surface):
    empty = replace(surface, evaluated=np.zeros(surface.loss.shape, bool))
    panels = [NamedSurface("a", "weight", empty)]
    assert np.isnan(traces(plot_surfaces(panels), "heatmap")[0].z).all()
    assert "unknown so far" in describe_surfaces(panels)
    assert len(plot_surfaces([]).data) == 0


def test_the_probe_is_invisible_and_answers_clicks(make_surface):
    surface = make_surface(65)
    probe = named(plot_surfaces([NamedSurface("a", "weight", surface)]), "probe")[0]
    assert probe.x.size == 26**2
    assert probe.marker.color == "rgba(0,0,0,0)"
    assert probe.hovertemplate
    assert probe.hoverinfo is None
    grid = (surface.x / surface.scale).astype(np.float32)
    assert np.isin(probe.x, grid).all()


def test_panels_stand_side_by_side_or_one_below_the_other(make_surface):
    panels = [NamedSurface(str(k), "weight", make_surface(9)) for k in range(3)]
    wide, tall = plot_surfaces(panels).layout, plot_surfaces(panels, compact=True).layout
    assert wide.xaxis.domain[1] < wide.xaxis2.domain[0] < wide.xaxis3.domain[0]
    assert tall.yaxis.domain[0] > tall.yaxis2.domain[1] > tall.yaxis3.domain[1]
    assert tall.height > 2 * wide.height


def test_the_description_has_range_places_and_residuals(make_surface):
    surface = make_surface(residual=0.32)
    surface = replace(surface, points=(*surface.points, PlanePoint("midpoint", 10.0, 0.0)))
    text = describe_surfaces([NamedSurface("Weights", "weight", surface)])
    assert "33 × 33 points" in text
    assert f"from {surface.loss.min():.3g} to {surface.loss.max():.3g} nats" in text
    assert "B at (1.00, 0.00), loss about" in text
    assert "π(B) lies 0.32 off the plane" in text
    assert "midpoint at (0.50, 0.00)" in text


def test_three_dimensions_hold_one_surface_of_at_most_51_points_a_side(make_surface):
    surface = make_surface(65)
    figure = plot_surface_3d(surface, method="weight")
    drawn = traces(figure, "surface")
    assert len(drawn) == 1
    assert max(drawn[0].z.shape) <= 51
    np.testing.assert_array_equal(drawn[0].customdata[..., 0], surface.loss[::2, ::2].astype("f4"))
    assert {pin.name for pin in traces(figure, "scatter3d")} == {"A", "B", "π(B)"}
    assert thinned(surface, 65).loss.shape == (65, 65)


@pytest.mark.parametrize(("low", "high"), [(0.05, 3.0), (0.41, 0.47), (1e-6, 100.0), (0.3, 0.9)])
def test_ticks_are_round_and_within_the_range(low, high):
    for values in (round_values(low, high), even_values(low, high)):
        assert 3 <= len(values) <= 12
        assert all(low <= value <= high * (1 + 1e-9) for value in values)
