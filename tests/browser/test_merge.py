"""Many models: finished results, shares that follow in the browser, files in and out."""

from __future__ import annotations

import re
import zipfile

import pytest
import safetensors.torch
import torch
from playwright.sync_api import expect

import merging

PATIENCE = 60_000
COMPUTING = 60_000
VIEWS = {
    "Coefficients": "the best value is ringed",
    "What they do": "Assumes:",
    "Take away": "Make the file",
}


def view(page, name):
    """Choose a part of the page."""
    buttons = page.locator(".st-key-merge_view")
    choose = buttons.get_by_role("radio", name=name, exact=True)
    choose.or_(buttons.get_by_role("button", name=name, exact=True)).first.click()


def rule(page, name):
    """Choose a rule, or leave it out."""
    page.locator("[class*=st-key-merge_rules]").get_by_role(
        "button", name=name, exact=True
    ).first.click()


def expect_nothing_computed(page):
    expect(page.get_by_role("button", name="Stop", exact=True)).to_have_count(0)
    expect(page.get_by_test_id("stException")).to_have_count(0)


def test_views_open_on_finished_results(page, settled):
    page.goto("/merge")
    best = page.get_by_test_id("stMetric").first
    expect(best).to_contain_text(re.compile(r"Best rule: .*9\d\.\d%", re.DOTALL), timeout=PATIENCE)
    for name, words in VIEWS.items():
        view(page, name)
        expect(page.get_by_text(words).first).to_be_visible(timeout=PATIENCE)
        settled(page)
        expect_nothing_computed(page)


def test_accuracy_follows_a_share_without_the_server(page, settled):
    sent = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(frame)))
    page.goto("/merge?merge_view=Shares")
    slider = page.get_by_role("slider", name="Weight of Noisy")
    expect(slider).to_be_visible(timeout=PATIENCE)
    settled(page)
    page.wait_for_timeout(1000)
    found = page.locator(".shares .found .bar b").first
    before, count = found.inner_text(), len(sent)
    slider.focus()
    for _ in range(30):
        slider.press("ArrowLeft")
    expect(found).not_to_have_text(before)
    expect(page.locator(".shares output").nth(3)).to_have_text("15 %")  # 0.7 of 4.7
    page.wait_for_timeout(500)
    assert count > 0
    assert len(sent) == count
    expect_nothing_computed(page)


@pytest.fixture(scope="module")
def family():
    return merging.load_family("mnist-classes")


@pytest.fixture(scope="module")
def files(family, tmp_path_factory):
    """Three models, and then their base."""
    folder = tmp_path_factory.mktemp("models")
    states = {"01": family.models[0], "23": family.models[1], "45": family.models[2]}
    found = []
    for name, params in {**states, "base": family.base}.items():
        found.append(folder / f"{name}.safetensors")
        merging.write_checkpoint(found[-1], params)
    return found


def test_models_are_brought_merged_and_taken_away(page, settled, family, files, tmp_path):
    address = "/merge?merge_family=Your+checkpoints&merge_view=What+they+do&merge_tuned=false"
    page.goto(address)
    page.locator(".st-key-merge_files input[type=file]").set_input_files(files[:3])
    page.locator(".st-key-merge_base_file input[type=file]").set_input_files(files[3])
    expect(page.locator("[class*=st-key-merge_rules]")).to_be_visible(timeout=COMPUTING)
    settled(page)
    # What is asked for takes time, so it is not asked for before the rules are chosen.
    for name in ("Weighted mean", "DARE", "Fisher averaging", "RegMean", "Gradient matching"):
        rule(page, name)
        settled(page)
    view(page, "Rules")
    best = page.get_by_test_id("stMetric").first
    expect(best).to_contain_text(re.compile(r"Best rule: \w+"), timeout=COMPUTING)
    rows = page.locator(".js-plotly-plot .ytick text").get_by_text("Task arithmetic")
    expect(rows).to_be_visible(timeout=COMPUTING)
    expect(page.get_by_test_id("stDataFrame").first).to_be_visible(timeout=PATIENCE)
    view(page, "Take away")
    page.get_by_role("button", name="Make the file").click()
    download = page.get_by_role("button", name=re.compile("Download merged-task_arithmetic.*zip"))
    expect(download).to_be_visible(timeout=COMPUTING)
    with page.expect_download() as started:
        download.click()
    with zipfile.ZipFile(started.value.path()) as archive:
        assert set(archive.namelist()) == {"README.md", "model.safetensors", "recipe.json"}
        archive.extract("model.safetensors", tmp_path)
    merged = safetensors.torch.load_file(tmp_path / "model.safetensors")
    expected = merging.fuse(
        "task_arithmetic", models=family.models[:3], base=family.base, weights=[0.3] * 3
    )
    assert set(merged) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(merged[name], value)
