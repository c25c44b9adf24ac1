"""Computing while somebody looks: progress, stopping, pictures before they are complete."""

from __future__ import annotations

import re

from playwright.sync_api import expect

PATIENCE = 30_000


def test_the_objective_is_drawn_while_a_method_runs_and_stop_stops_it(page):
    page.goto("/align?pair=mnist-cnn&methods=straight_through&seed=77")
    stop = page.locator(".st-key-align_stop").get_by_role("button", name="Stop")
    expect(stop).to_be_visible(timeout=PATIENCE)
    picture = ".js-plotly-plot svg.main-svg"
    expect(page.locator(picture).first).to_be_attached(timeout=PATIENCE)
    expect(stop).to_be_visible(timeout=1000)
    stop.click()
    stopped = page.get_by_text(re.compile(r"stopped at \d+ of \d+ parts"))
    expect(stopped).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_role("button", name="Go on")).to_be_visible()


def test_matching_with_another_seed_is_shown_when_it_is_there(page, settled):
    page.goto("/align?pair=digits-mlp-256")
    expect(page.get_by_text("What each method reached")).to_be_visible(timeout=PATIENCE)
    seed = page.get_by_label("Seed", exact=True)
    seed.fill("78")
    seed.press("Enter")
    expect(page.get_by_text("What each method reached")).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_role("button", name="Stop")).to_have_count(0, timeout=PATIENCE)
    settled(page)
    expect(page.locator(".js-plotly-plot svg.main-svg").first).to_be_visible()
    assert "seed=78" in page.url
    expect(page.get_by_test_id("stException")).to_have_count(0)


def test_a_landscape_is_there_before_it_is_complete(page):
    page.goto("/landscape?seed=79")
    page.get_by_role("radio", name="Random directions").or_(
        page.get_by_role("button", name="Random directions")
    ).first.click()
    points = page.wait_for_function(
        """() => {
            const picture = document.querySelector('.js-plotly-plot .heatmaplayer image, '
                + '.js-plotly-plot .contourlayer path, .js-plotly-plot .cartesianlayer image');
            const said = document.body.innerText.match(/([\\d,]+) points/);
            const running = document.querySelector('[data-testid=stProgress]');
            return picture && said && running ? said[1] : null;
        }""",
        timeout=PATIENCE,
    ).json_value()
    assert 0 < int(points.replace(",", "")) < 1089
    stop = page.get_by_role("button", name="Stop")
    stop.click()
    expect(page.get_by_role("button", name="Go on")).to_be_visible(timeout=PATIENCE)
    expect(page.locator(".js-plotly-plot").first).to_be_visible()


def test_permutations_are_drawn_as_dots(page, settled):
    page.goto("/permutations")
    expect(page.locator(".js-plotly-plot").nth(4)).to_be_attached(timeout=PATIENCE)
    settled(page)
    dots = page.locator(".st-key-permutations_dots .scatterlayer .points path")
    expect(dots).not_to_have_count(0)
    assert dots.count() >= 512
    assert page.locator("canvas.gl-canvas").count() == 0
