"""Every page of the app, for pairs of every kind, from packed results."""

from __future__ import annotations

import json
import re

import pytest

from merging.schema.cards.zoo import ASSETS, list_pairs, read_card
from tests.pages.conftest import charts, figure, pick, said

PAGES = ("start", "models", "align", "interpolate", "landscape", "permutations")
PAIRS = ("mnist-mlp-512", "mnist-resnet-bn", "mnist-vit", "two-unit-counterexample")
LEAST_CHARTS = {"start": 1, "align": 1, "interpolate": 1, "landscape": 1, "permutations": 5}
CHART_BYTES, PAGE_BYTES = 0.5e6, 1.5e6


def packed(pair):
    return (ASSETS / "results" / f"{pair}.zip").exists()


@pytest.mark.usefixtures("nothing_asked")
@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("pair", PAIRS)
def test_a_page_is_complete_at_once(page, pair, open_page):
    if not packed(pair):
        pytest.skip(f"no results of {pair} are packed")
    # Surfaces of slow networks are packed coarse, and refined when somebody looks.
    coarse = page == "landscape" and read_card(pair)["config"]["architecture"] != "mlp"
    at = open_page(page, pair=pair, **({"landscape_side": 9} if coarse else {}))
    assert not at.exception
    assert not at.error
    assert len(at.title) == 1
    assert not at.get("progress")
    found = charts(at)
    assert len(found) >= LEAST_CHARTS.get(page, 0)
    for chart in found:
        assert re.search(r"\d", chart.alt), chart.alt
        assert len(chart.spec) <= CHART_BYTES
    assert sum(len(chart.spec) for chart in found) <= PAGE_BYTES
    if page != "start":
        assert read_card(pair)["title"] in "".join(said(at))


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("pair", PAIRS)
def test_a_page_has_its_frame_while_nothing_is_there_yet(page, pair, open_page):
    at = open_page(page, pair=pair, seed=12345)
    assert not at.exception
    assert not at.error
    assert len(at.title) == 1
    assert {"pair", "seed"} <= {element.key for element in (*at.selectbox, *at.number_input)}


def test_start_shows_both_curves_and_their_numbers_without_computing(open_page, nothing_asked):
    at = open_page("start")
    (chart,) = charts(at)
    names = " ".join(str(trace.get("name")) for trace in figure(chart)["data"])
    assert "Not aligned" in names
    assert "Weight" in names
    naive, aligned, accuracy = (float(m.value.split()[0].strip("%")) for m in at.metric)
    assert naive >= 0.5
    assert aligned <= 0.02
    assert accuracy >= 100 * min(
        read_card("mnist-mlp-512")[f"test_accuracy_{letter}"] for letter in "ab"
    )
    assert "weight matching, seed 0" in " ".join(said(at))


def test_start_says_how_many_pairs_there_are(open_page, nothing_asked):
    text = " ".join(element.value for element in open_page("start").markdown)
    assert "Thirteen pairs" in text
    assert len(list_pairs()) == 13


def test_both_definitions_of_the_barrier_are_shown(open_page, nothing_asked):
    at = open_page("interpolate", pair="digits-mlp-256")
    barriers = at.dataframe[-1].value
    assert list(barriers["Method"]) == ["Not aligned", "Weight matching", "Activation matching"]
    assert {"Loss barrier (nats)", "Above the line"} <= set(barriers.columns)
    assert barriers["Loss barrier (nats)"][0] >= 0.4
    assert (barriers["Loss barrier (nats)"][1:] <= 0.02).all()


@pytest.mark.usefixtures("nothing_asked")
@pytest.mark.parametrize(
    ("baseline", "words"),
    [("endpoints-mean", "the mean of the two end points"), ("linear", "the straight line")],
)
def test_the_chart_uses_the_definition_that_was_chosen(baseline, words, open_page):
    at = open_page("interpolate", pair="digits-mlp-256", interpolate_baseline=baseline)
    (chart,) = charts(at)
    assert words in chart.alt


def test_the_table_beside_a_chart_has_its_numbers(open_page, nothing_asked):
    at = open_page("interpolate", pair="digits-mlp-256")
    values = at.dataframe[0].value
    assert len(values) == 3 * 25
    assert values["λ"].between(0, 1).all()
    assert values["Accuracy (%)"].between(0, 100).all()


def test_align_says_what_each_method_reached(open_page, nothing_asked):
    at = open_page("align", pair="digits-mlp-256")
    reached = at.dataframe[-1].value
    assert list(reached["Method"]) == ["Not aligned", "Weight matching", "Activation matching"]
    assert reached["Barrier (nats)"][0] > reached["Barrier (nats)"][1:].max() + 0.3
    assert "of 768" in reached["Units moved"][1]


def test_models_shows_the_symmetry_and_its_certificate(open_page, nothing_asked):
    at = open_page("models", pair="mnist-mlp-512")
    values = " ".join(metric.value for metric in at.metric)
    assert "1,536" in values  # units in three groups
    assert "10³⁵⁰⁰" in values  # (512!)³ orderings
    assert any(text.value.startswith("Certified") for text in at.success)


def test_permutations_shows_one_dot_per_unit(open_page, nothing_asked):
    at = open_page("permutations", pair="digits-mlp-256")
    dots = figure(charts(at)[0])["data"]
    sizes = [len(_values(trace.get("x"))) for trace in dots if "markers" in trace.get("mode", "")]
    assert 256 in sizes


def _values(array):
    """Numbers of a trace, packed or plain."""
    if not isinstance(array, dict):
        return array or []
    import base64

    import numpy as np

    return np.frombuffer(base64.b64decode(array["bdata"]), dtype=array["dtype"])


def test_another_group_can_be_chosen(open_page, nothing_asked):
    at = open_page("permutations", pair="digits-mlp-256")
    before = charts(at)[0].spec
    at.selectbox(key="permutations_group").set_value(1).run()
    assert not at.exception
    assert charts(at)[0].spec != before


@pytest.mark.usefixtures("nothing_asked")
@pytest.mark.parametrize("quantity", ["distance", "cosine", "barrier", "variance"])
def test_layers_can_be_compared_by_every_quantity(quantity, open_page):
    at = open_page("permutations", pair="digits-mlp-256", permutations_quantity=quantity)
    assert not at.exception
    assert len(charts(at)) == 5


@pytest.mark.usefixtures("nothing_asked")
@pytest.mark.parametrize("order", ["index", "match", "cycle"])
def test_units_can_be_sorted(order, open_page):
    at = open_page("permutations", pair="digits-mlp-256", permutations_order=order)
    assert not at.exception


def test_a_slice_is_drawn_in_three_dimensions_when_asked(open_page, nothing_asked):
    at = open_page("landscape", pair="digits-mlp-256")
    assert len(charts(at)) == 1
    at.toggle(key="landscape_3d").set_value(True).run()
    assert not at.exception
    _, solid = charts(at)
    assert "surface" in [trace["type"] for trace in figure(solid)["data"]]
    assert re.search(r"\d", solid.alt)
    assert len(solid.spec) <= CHART_BYTES


def test_without_batch_norm_reset_is_not_offered_on_the_landscape(open_page, nothing_asked):
    at = open_page("landscape", pair="digits-mlp-256")
    assert "landscape_statistics" not in [element.key for element in at.get("button_group")]


def test_nothing_is_compared_without_a_method(open_page, nothing_asked):
    for page in ("align", "landscape", "permutations"):
        at = open_page(page, pair="digits-mlp-256", methods=[])
        assert not at.exception
        assert "Choose at least one matching method" in " ".join(said(at))
    at = open_page("interpolate", pair="digits-mlp-256", methods=[])
    assert len(at.dataframe[-1].value) == 1


def test_tables_show_every_column_also_where_sizes_differ_much(open_page, nothing_asked):
    at = open_page("align", methods=["weight", "activation", "straight_through"])
    results = at.dataframe[-1]
    assert {"Objective", "Restarts", "Change"} <= set(results.value.columns)
    hidden = [
        name for name, look in json.loads(results.proto.columns).items() if look.get("hidden")
    ]
    assert not set(hidden) & set(results.value.columns)


@pytest.mark.parametrize("page", ["align", "interpolate", "landscape"])
def test_what_is_shown_can_be_copied_as_code_and_as_a_command(page, open_page, nothing_asked):
    at = open_page(page)
    python, command = [element.proto.code_text for element in at.get("code")]
    assert 'merging.load_pair("mnist-mlp-512")' in python
    assert command.startswith("python -m merging ")


def test_models_says_what_matching_will_take_when_asked(open_page, wait_for):
    at = open_page("models", pair="two-unit-counterexample")
    pick(at, "Compute").click().run()
    wait_for(at, lambda at: len(at.metric) == 7, "forecast")
    shown = {metric.label: metric.value for metric in at.metric}
    assert shown["Memory for it"] == "1 MB"
    assert shown["Weight matching, about"].endswith("ms")


def test_a_frozen_group_is_proven_and_used_on_all_pages(open_page, wait_for):
    at = open_page("models", pair="two-unit-counterexample")
    at.multiselect(key="models_freeze").select("layers.0.weight[0]").run()
    use = "Use this spec on all pages"
    wait_for(at, lambda at: use in [b.label for b in at.button], "certificate")
    pick(at, use).click().run()
    wait_for(at, lambda at: any("1 · 2" in str(m.value) for m in at.metric), "chosen spec")
    assert any("you chose" in words for words in said(at))
    at.switch_page("pages/align.py").run()
    wait_for(at, lambda at: any("spec by hand" in words for words in said(at)), "alignment")
    at.switch_page("pages/models.py").run()
    pick(at, "Use the derived spec again").click().run()
    assert any("2 · 4" in str(metric.value) for metric in at.metric)
