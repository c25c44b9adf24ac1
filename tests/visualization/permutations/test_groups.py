"""Groups on the model's own layers: which cell is whose, and why others are fixed."""

from __future__ import annotations

import json

import pytest

from merging.results.compute.store import Store
from merging.results.requests import SymmetryRequest, bundled_subject
from merging.schema.cards.zoo import ASSETS
from merging.schema.records.symmetry import FrozenAxis, GroupCertificate, SymmetrySummary
from merging.visualization import describe_groups, plot_groups
from merging.visualization.permutations.groups import PALETTE, layer_rows, read_axes

SPEC = {
    "a.weight": ["h", None],
    "a.bias": ["h"],
    "b.in_weight": [{"concat": [["q", 3], ["v", 3]]}, "h"],
    "b.out_weight": ["h", {"product": [["v", 3], [None, 2]]}],
    "scale": [],
}


def summary(spec, groups):
    frozen = (FrozenAxis("a.weight", 1, 4, "the model reads it"),)
    certificates = tuple(GroupCertificate(name, n, ()) for name, n in groups.items())
    return SymmetrySummary(
        certificates, frozen, (), 1.0, 0.0, 1e-9, True, 1.0, 0.1, spec=json.dumps(spec)
    )


@pytest.fixture
def small():
    return summary(SPEC, {"h": 8, "q": 3, "v": 3})


def bars(figure):
    (trace,) = figure.data
    return trace


def test_parameters_of_a_layer_share_a_row_unless_they_differ(small):
    rows = layer_rows(read_axes(small.spec))
    assert [(row.layer, row.parameters) for row in rows] == [
        ("a", ("a.weight", "a.bias")),
        ("b.in_weight", ("b.in_weight",)),
        ("b.out_weight", ("b.out_weight",)),
    ]


def test_every_part_of_an_axis_has_a_cell_with_its_group_s_number(small):
    texts = list(bars(plot_groups(small)).text)
    assert texts == ["<b>1</b> · 8", "", "<b>2</b>", "<b>3</b>", "<b>1</b> · 8", "<b>1</b> · 8",
                     "<b>3</b>", ""]  # fmt: skip


def test_the_parts_of_an_axis_fill_its_column(small):
    trace = bars(plot_groups(small))
    first, second = (k for k, text in enumerate(trace.text) if text in ("<b>2</b>", "<b>3</b>")
                     and trace.y[k] == 1)  # fmt: skip
    assert trace.base[first] + trace.x[first] == pytest.approx(trace.base[second])
    assert 0 < trace.base[first] < trace.base[second] + trace.x[second] < 1


def test_a_cell_says_its_group_or_why_it_is_fixed(small):
    words = list(bars(plot_groups(small)).customdata)
    assert words[0] == "group 1: h<br>8 units<br>a.weight, a.bias<br>axis 0"
    assert words[1] == "fixed: the model reads it<br>a.weight, a.bias<br>axis 1"
    assert words[-1] == "fixed: it keeps its order<br>b.out_weight<br>axis 1"


def test_one_group_has_one_colour_and_neighbours_have_others(small):
    trace = bars(plot_groups(small))
    seen = {}
    for text, colour in zip(trace.text, trace.marker.color, strict=True):
        if text:
            assert seen.setdefault(text[3], colour) == colour
    assert len(set(seen.values())) == 3
    assert set(seen.values()) <= set(PALETTE)


def test_long_names_keep_their_numbers_and_their_last_word():
    spec = {"blocks.0.attention.query.weight": ["h"], "blocks.11.attention.value.weight": ["h"]}
    figure = plot_groups(summary(spec, {"h": 4}), compact=True)
    assert list(figure.layout.yaxis.ticktext) == ["b.0.a.query", "b.11.a.value"]


def test_a_nested_group_is_one_part_beside_its_parent():
    inner = {"group": "h.inner", "within": ["h"], "size": 3}
    spec = json.dumps({"w": [{"product": [["h", 2], inner]}, {"fixed": "x", "size": 4}]})
    assert read_axes(spec) == {"w": (("h", "h.inner"), (None,))}


def test_kinds_of_entries_that_are_not_known_yet_are_read_for_their_groups():
    spec = json.dumps({"w": [{"nested": ["h", {"size": 4, "within": "g"}]}, ["c", 3]]})
    assert read_axes(spec) == {"w": (("h", "g"), ("c",))}


def test_the_words_have_the_numbers(small):
    assert describe_groups(small) == (
        "3 permutation groups on 3 layers. The one on most layers is number 1, h, with 8 units: "
        "it is on 3 layers. Axes that are fixed: 1."
    )
    assert "nothing may be permuted" in describe_groups(summary({"w": [None]}, {}))


@pytest.mark.parametrize("name", ["mnist-vit", "mnist-resnet-bn", "two-unit-counterexample"])
@pytest.mark.parametrize("compact", [True, False])
def test_packed_results_can_be_drawn(name, compact, tmp_path):
    store = Store(tmp_path / "store", bundled=(ASSETS / "results",))
    found = SymmetryRequest(bundled_subject(name).config).read(store)
    assert found is not None
    figure = plot_groups(found, dark=True, compact=compact)
    numbers = {text.split("<b>")[1].split("<")[0] for text in bars(figure).text if text}
    assert numbers == {str(k + 1) for k in range(len(found.groups))}
    assert len(figure.to_json()) < 100_000
