"""The Merge page: families, rules, views, files."""

from __future__ import annotations

import json
import re

import pytest

from merging.results import requests
from merging.schema.cards.zoo import list_families, read_family_card
from tests.pages.conftest import charts, figure, labels, pick, said

VIEWS = ("Rules", "Coefficients", "Shares", "Confidence", "Why", "What they do", "Take away")
CHARTS = {"Coefficients": 2, "Shares": 0, "Why": 5, "What they do": 0, "Take away": 0}
BYTES = 0.5e6


@pytest.mark.usefixtures("nothing_asked")
@pytest.mark.parametrize("family", list_families())
def test_every_family_opens_on_finished_results(family, open_page):
    at = open_page("merge", merge_family=family)
    assert not at.exception
    assert not at.error
    assert not at.get("progress")
    (chart,) = charts(at)
    assert re.search(r"Merged: .*\d", chart.alt)
    assert len(chart.spec) < BYTES
    assert read_family_card(family)["title"] in " ".join(said(at))


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("family", ["mnist-harsh", "mnist-seeds"])
def test_every_view_is_drawn_before_anything_is_there(view, family, open_page):
    at = open_page("merge", merge_family=family, merge_view=view, seed=99)
    assert not at.exception
    assert not at.error
    assert len(at.title) == 1


@pytest.mark.usefixtures("nothing_asked")
def test_the_cycle_error_of_a_common_order_is_said(open_page):
    at = open_page("merge", merge_family="mnist-seeds")
    (line,) = [line for line in said(at) if "Cycle error" in line]
    assert re.search(r"Aligned first \(mergemany.* [1-9]\d?% by matching .* 0% in this", line)


@pytest.mark.usefixtures("nothing_asked")
@pytest.mark.parametrize("view", VIEWS)
def test_every_view_of_the_first_family_opens_on_finished_results(view, open_page):
    at = open_page("merge", merge_family=list_families()[0], merge_view=view)
    assert not at.exception
    assert not at.error
    assert not at.get("progress")
    assert len(charts(at)) == CHARTS.get(view, 1)


@pytest.mark.usefixtures("nothing_asked")
@pytest.mark.parametrize("family", ["mnist-mild", "mnist-harsh", "mnist-classes", "mnist-soup"])
def test_the_reasons_are_packed(family, open_page):
    at = open_page("merge", merge_family=family, merge_view="Why")
    assert not at.exception
    if not read_family_card(family)["joint"]:
        assert len(charts(at)) == 4
        return
    words = ("mismatch", "osine", "squared length", "eight", "tensor")
    for chart, word in zip(charts(at), words, strict=True):
        assert word in chart.alt
    assert [metric.label for metric in at.metric] == [
        "Gradient matching, α = 1",
        "Gradient mismatch",
    ]
    removed = at.dataframe[-1].value
    assert removed["Removed"][0] == "Nothing removed"
    assert len(removed) == 7


@pytest.mark.usefixtures("nothing_asked")
def test_rules_that_cannot_be_used_say_what_they_lack(open_page):
    text = " ".join(said(open_page("merge", merge_family="mnist-seeds")))
    assert "**SLERP** takes 2 models." in text
    assert "TIES, DARE, Model Stock, Gradient matching, Removing tasks** need a base model." in text
    assert "**SWA, EMA, LAWA** need the checkpoints of one run, in their order." in text
    assert "SWA" not in " ".join(said(open_page("merge", merge_family="mnist-run")))


def test_models_left_out_are_left_out_of_what_is_asked(open_page, asked):
    open_page("merge", **{"merge_family": "mnist-mild", "merge_members_mnist-mild": [0, 2]})
    family = requests.bundled_family("mnist-mild").of((0, 2))
    wanted = {job.key for job in asked}
    assert requests.ReferencesRequest(family).job().key in wanted


def test_one_model_is_not_merged(open_page, asked):
    at = open_page("merge", **{"merge_family": "mnist-mild", "merge_members_mnist-mild": [0]})
    assert "Choose at least two models." in said(at)
    assert not asked


def test_coefficients_that_are_set_are_asked_for_as_they_are(open_page, asked):
    open_page("merge", merge_family="mnist-soup", merge_tuned=False, seed=3)
    family = requests.bundled_family("mnist-soup")
    wanted = requests.fusion(family, "wise_ft", {"t": 0.5}, seed=3)
    assert wanted.job().key in {job.key for job in asked}


def test_without_their_base_models_are_fused_by_other_rules(open_page, asked):
    at = open_page("merge", merge_family="mnist-mild", merge_base=False)
    names = {json.loads(piece.payload)["request"].get("rule") for j in asked for piece in j.pieces}
    assert "average" in names
    assert "ties" not in names
    assert not at.exception


def test_the_pair_in_the_sidebar_can_be_merged(open_page, asked):
    at = open_page("merge", merge_family="pair", pair="digits-mlp-256")
    assert not at.exception
    family = requests.pair_family(requests.bundled_subject("digits-mlp-256"))
    assert requests.ReferencesRequest(family).job().key in {job.key for job in asked}


def test_shares_follow_in_the_browser(open_page, nothing_asked):
    at = open_page("merge", merge_family="mnist-harsh", merge_view="Shares")
    assert not at.exception
    assert any("means computed, linear in between" in line for line in said(at))


def test_three_models_have_a_triangle_beside_their_sliders(open_page, wait_for):
    three = {"merge_family": "mnist-run", "merge_members_mnist-run": [5, 6, 7]}
    at = open_page("merge", merge_view="Shares", **three)
    at = wait_for(at, charts, "triangle")
    (chart,) = charts(at)
    assert "Validation loss (nats) of 231 weighted means of 3 models" in chart.alt
    assert len(at.dataframe[0].value) == 231
    assert len(chart.spec) < BYTES
    assert not at.exception


def test_every_chosen_rule_has_its_card(open_page):
    at = open_page("merge", merge_family="mnist-run", merge_view="What they do")
    text = " ".join(str(block.value) for block in at.markdown)
    assert "**SWA**" in text
    assert "**Assumes:**" in text


def test_merged_models_are_made_and_handed_over(open_page, wait_for):
    at = open_page("merge", merge_family="mnist-run", merge_view="Take away")
    pick(at, "Make the file").click().run()
    at = wait_for(at, lambda at: any("merged-swa" in label for label in downloads(at)), "file")
    (taken,) = (box for box in at.multiselect if box.label == "Merged by")
    taken.set_value(["swa", "ema", "lawa"]).run()
    assert len(downloads(at)) == 1  # the one that is there
    pick(at, "Make 2 files").click().run()
    at = wait_for(at, lambda at: len(downloads(at)) == 3, "files")
    assert not at.error


def downloads(at):
    return [element.proto.label for element in at.get("download_button")]


def test_the_best_value_of_a_scan_is_ringed(open_page, nothing_asked):
    at = open_page("merge", merge_family="mnist-harsh", merge_view="Coefficients")
    first = figure(charts(at)[0])
    symbols = [trace.get("marker", {}).get("symbol") for trace in first["data"]]
    assert "circle-open" in symbols
    assert "Stop" not in labels(at)


def test_what_is_on_screen_can_be_had_without_a_browser(open_page):
    at = open_page("merge", merge_family="mnist-mild")
    command = at.code[-1].value
    assert command == "python -m merging fuse mnist-mild --rule average"
    assert "merged = merging.fuse(" in at.code[-2].value
