"""Many models: finished results, and shares that follow in the browser."""

from __future__ import annotations

import re

from playwright.sync_api import expect

PATIENCE = 60_000
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
