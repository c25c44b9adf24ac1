"""What holds for every figure: both themes, contrast, type, and how much a browser must load."""

import re
import subprocess
import sys

import pytest

from merging import visualization
from merging.visualization import (
    METHOD_STYLES,
    NamedCurve,
    NamedSurface,
    plot_curves,
    plot_cycles,
    plot_layers,
    plot_margins,
    plot_objectives,
    plot_permutation,
    plot_similarity,
    plot_simplex,
    plot_surface_3d,
    plot_surfaces,
)
from merging.visualization.theme import CIVIDIS, DARK, LIGHT, PATH_STYLE, inks

LIMIT = 500_000
PLOTLY_COLOURS = ("636efa", "ef553b", "00cc96", "ab63fa", "e5ecf6", "2a3f5f")


@pytest.fixture
def figures(make_curve, make_surface, make_simplex, make_units, make_alignment, rows):
    """A drawing of everything at its largest, by name."""
    curves = [
        NamedCurve(method, make_curve(split=split, points=61, seed=k), label)
        for k, method in enumerate(METHOD_STYLES)
        for split in ("train", "test")
        for label in (None, f"{method}, REPAIR")
    ]
    surfaces = [NamedSurface(name, name, make_surface(65, aligned=name)) for name in METHOD_STYLES]
    units = make_units(2048)
    runs = [make_alignment(name, tuple(range(500)), (1.0, 2.0)) for name in METHOD_STYLES]
    return {
        "curves": lambda **look: plot_curves(curves, **look),
        "surfaces": lambda **look: plot_surfaces(surfaces[1:], **look),
        "surfaces apart": lambda **look: plot_surfaces(surfaces[1:], shared_scale=False, **look),
        "simplex": lambda **look: plot_simplex(make_simplex(32), **look),
        "surface 3d": lambda **look: plot_surface_3d(surfaces[1].surface, **look),
        "permutation": lambda **look: plot_permutation(units, **look),
        "similarity": lambda **look: plot_similarity(units, **look),
        "cycles": lambda **look: plot_cycles(units, **look),
        "margins": lambda **look: plot_margins(units, **look),
        "objectives": lambda **look: plot_objectives(runs, **look),
        "layers": lambda **look: plot_layers(rows * 30, quantity="variance", **look),
    }


def luminance(colour):
    channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_measured_as_the_standard_says():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("method", METHOD_STYLES)
def test_every_method_stands_out_from_both_backgrounds(method, dark):
    background = "#0e1117" if dark else "#ffffff"
    assert contrast(METHOD_STYLES[method].colour(dark), background) >= 3


@pytest.mark.parametrize("ink", [LIGHT, DARK], ids=["light", "dark"])
def test_every_text_can_be_read(ink):
    for colour in (ink.text, ink.muted, ink.alarm):
        assert contrast(colour, ink.background) >= 4.5
    assert contrast(ink.axis, ink.background) >= 3


@pytest.mark.parametrize("dark", [False, True])
def test_every_dot_of_a_permutation_stands_out(make_units, dark):
    scale = plot_permutation(make_units(), dark=dark).layout.coloraxis.colorscale
    assert all(contrast(colour, inks(dark).background) >= 3 for _, colour in scale)


def test_colours_grow_lighter_with_the_loss():
    lightness = [luminance(colour) for colour in CIVIDIS]
    assert lightness == sorted(lightness)


@pytest.mark.parametrize("dark", [False, True])
def test_paths_stand_out_from_both_backgrounds(dark):
    assert contrast(PATH_STYLE.colour(dark), inks(dark).background) >= 3
    assert PATH_STYLE.colour(dark) not in {s.colour(dark) for s in METHOD_STYLES.values()}


def test_markers_are_all_different():
    assert len({style.symbol for style in METHOD_STYLES.values()}) == len(METHOD_STYLES)


@pytest.mark.parametrize("compact", [False, True])
def test_no_figure_asks_a_browser_for_more_than_half_a_megabyte(figures, compact):
    sizes = {name: len(draw(compact=compact).to_json()) for name, draw in figures.items()}
    assert {name: size for name, size in sizes.items() if size > LIMIT} == {}


def test_lines_and_dots_never_use_webgl(figures):
    kinds = {t.type for name, draw in figures.items() if name != "surface 3d" for t in draw().data}
    assert kinds == {"scatter", "heatmap", "contour", "bar"}


def test_both_themes_are_our_own(figures):
    for draw in figures.values():
        light, dark = draw(), draw(dark=True)
        assert light.layout.template.layout.font.color != dark.layout.template.layout.font.color
        for figure in (light, dark):
            assert figure.layout.template.layout.paper_bgcolor == "rgba(0,0,0,0)"
            assert "Source Sans" in figure.layout.template.layout.font.family
            text = figure.to_json().lower()
            assert [colour for colour in PLOTLY_COLOURS if f"#{colour}" in text] == []


def test_a_phone_gets_smaller_margins(figures):
    for draw in figures.values():
        assert draw(compact=True).layout.margin.r <= 64


def test_every_axis_has_a_title_and_every_figure_a_height(figures):
    for name, draw in figures.items():
        layout = draw(compact=True).layout
        assert layout.height
        axes = [key for key in layout.to_plotly_json() if re.fullmatch(r"[xy]axis\d*", key)]
        seen = [key for key in axes if layout[key].visible is not False]
        untitled = [key for key in seen if not layout[key].title.text]
        assert untitled == (["yaxis"] if name == "layers" else [])


def test_public_names_are_sorted_and_there():
    names = visualization.__all__
    assert names == sorted(names)
    assert all(hasattr(visualization, name) for name in names)


def test_drawing_needs_neither_torch_nor_streamlit():
    code = (
        "import sys, merging.visualization as v\n"
        "sys.exit(','.join({'torch', 'streamlit'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
