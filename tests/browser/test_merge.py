"""The Merge page in a real browser: finished results, and sliders."""

from __future__ import annotations

from playwright.sync_api import expect

PATIENCE = 60_000


def test_merge_opens_on_finished_results(page):
    page.goto("/merge")
    expect(page.locator(".js-plotly-plot svg.main-svg").first).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_text("Best rule:")).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_role("button", name="Stop", exact=True)).to_have_count(0)
    expect(page.get_by_test_id("stException")).to_have_count(0)


def test_accuracy_follows_the_sliders_in_the_browser(page):
    page.goto("/merge")
    page.get_by_text("Shares", exact=True).click()
    sliders = page.locator(".sliders input")
    expect(sliders.first).to_be_visible(timeout=PATIENCE)
    found = page.locator(".found b").first
    before = found.inner_text()
    for k in range(4):
        sliders.nth(k).press("Home")
    expect(page.locator(".row output").last).to_have_text("100 %")
    expect(found).not_to_have_text(before)
