"""The Merge page in a real browser: finished results, sliders, uploads, the merged file."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from playwright.sync_api import expect

import merging

PATIENCE = 60_000


@pytest.fixture
def family():
    return merging.load_family("mnist-classes")


def test_merge_opens_on_finished_results(page):
    page.goto("/merge")
    expect(page.locator(".js-plotly-plot svg.main-svg").first).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_text("Best rule:")).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_role("button", name="Stop", exact=True)).to_have_count(0)
    expect(page.get_by_test_id("stException")).to_have_count(0)


def test_accuracy_follows_the_sliders_in_the_browser(page):
    page.goto("/merge")
    page.get_by_text("Shares", exact=True).click()
    slider = page.get_by_role("slider").first
    expect(slider).to_be_visible(timeout=PATIENCE)
    found = page.locator(".found b").first
    before = found.inner_text()
    slider.press("Home")
    expect(page.locator(".row output").first).to_have_text("0 %")
    expect(found).not_to_have_text(before)


def test_brought_models_are_merged_and_handed_over(page, family, tmp_path):
    files = []
    for k, params in enumerate(family.models[:3]):
        files.append(tmp_path / f"model-{k}.safetensors")
        merging.write_checkpoint(files[-1], params)
    merging.write_checkpoint(tmp_path / "base.safetensors", family.base)
    page.goto("/merge")
    page.get_by_role("combobox").first.click()
    page.get_by_role("option", name="Your checkpoints", exact=True).click()
    inputs = page.locator("input[type=file]")
    inputs.nth(0).set_input_files([str(path) for path in files])
    inputs.nth(1).set_input_files(str(tmp_path / "base.safetensors"))
    expect(page.get_by_text("Best rule:")).to_be_visible(timeout=2 * PATIENCE)
    page.get_by_text("Take away", exact=True).click()
    page.get_by_role("button", name="Make the file").click()
    download = page.get_by_role("button", name="Download merged-average")
    expect(download).to_be_visible(timeout=PATIENCE)
    with page.expect_download() as waiting:
        download.click()
    with zipfile.ZipFile(io.BytesIO(Path(waiting.value.path()).read_bytes())) as archive:
        found = safetensors.torch.load(archive.read("model.safetensors"))
    wanted = merging.fuse("average", models=family.models[:3])
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value)
