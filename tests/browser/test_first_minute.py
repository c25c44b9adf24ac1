"""A stranger's first minute: Start, links, every page, in light and dark, on a phone."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

PATIENCE = 30_000
TITLES = {
    "": "Two networks, one basin",
    "models": "Models",
    "align": "Align",
    "interpolate": "Interpolate",
    "landscape": "Landscape",
    "permutations": "Permutations",
    "merge": "Merge",
}
PHONE = (
    "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/130.0.0.0 Mobile Safari/537.36"
)


def heading(page, title):
    return page.get_by_role("heading", name=title, exact=True, level=1)


def chart(page):
    return page.locator(".js-plotly-plot svg.main-svg").first


def expect_no_traceback(page):
    expect(page.get_by_test_id("stException")).to_have_count(0)
    assert "Traceback" not in page.inner_text("body")


def test_start_shows_a_finished_result(page, settled):
    page.goto("/")
    expect(heading(page, TITLES[""])).to_be_visible(timeout=PATIENCE)
    expect(chart(page)).to_be_visible(timeout=PATIENCE)
    settled(page)
    metrics = page.get_by_test_id("stMetric")
    expect(metrics).to_have_count(3)
    expect(metrics.nth(0)).to_contain_text(re.compile(r"Barrier, not aligned\s*0\.[5-9]\d* nats"))
    expect(metrics.nth(1)).to_contain_text(re.compile(r"Barrier, aligned\s*0\.0[01]\d* nats"))
    expect(metrics.nth(2)).to_contain_text(re.compile(r"9\d\.\d%"))
    lines = page.locator(".js-plotly-plot .scatterlayer .js-line")
    assert lines.count() >= 4  # two methods, loss and accuracy
    assert page.locator("canvas.gl-canvas").count() == 0
    expect_no_traceback(page)


def test_the_chart_is_described_to_those_who_cannot_see_it(page):
    page.goto("/")
    described = page.locator("[aria-label*='barrier'], [alt*='barrier']").first
    expect(described).to_be_attached(timeout=PATIENCE)


def test_a_door_of_start_leads_on(page):
    page.goto("/?seed=0")
    page.get_by_role("link", name="Loss along the line").click()
    expect(heading(page, "Interpolate")).to_be_visible(timeout=PATIENCE)
    expect(chart(page)).to_be_visible(timeout=PATIENCE)


def test_the_first_visitor_of_a_server_may_come_by_a_deep_link(browser, new_server):
    context = browser.new_context(base_url=new_server)
    tab = context.new_page()
    tab.goto("/landscape?seed=7")
    expect(heading(tab, "Landscape")).to_be_visible(timeout=PATIENCE)
    expect(heading(tab, "Landscape")).to_have_count(1)
    links = tab.get_by_test_id("stSidebarNavItems").get_by_role("link")
    expect(links).to_have_text([
        re.compile(f"{title}$") for title in ("Start", *list(TITLES.values())[1:])
    ])
    expect(tab.get_by_label("Seed", exact=True)).to_have_value("7")
    expect(tab).to_have_title(re.compile("One Basin|Landscape"))
    assert "seed=7" in tab.url
    assert "/landscape" in tab.url
    expect(tab.get_by_text("Page not found")).to_have_count(0)
    expect_no_traceback(tab)
    context.close()


def luminance(colour):
    """Relative luminance of `rgb(…)` (WCAG 2)."""
    channels = [float(c) / 255 for c in re.findall(r"[\d.]+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


COLOURS = """() => {
    const text = document.querySelector('.js-plotly-plot .xtick text, .js-plotly-plot .ytick text');
    const app = document.querySelector('[data-testid=stApp]');
    const body = document.querySelector('[data-testid=stMarkdownContainer] p');
    if (!text || !app || !body) return null;
    return [getComputedStyle(app).backgroundColor, getComputedStyle(text).fill,
            getComputedStyle(body).color];
}"""


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_text_is_readable_in_light_and_dark(scheme, browser, server):
    context = browser.new_context(base_url=server, color_scheme=scheme)
    tab = context.new_page()
    tab.goto("/")
    expect(chart(tab)).to_be_visible(timeout=PATIENCE)
    # The server learns the theme with the first answer of the browser, and draws again.
    tab.wait_for_function(
        f"""() => {{
            const colours = ({COLOURS})();
            if (!colours) return false;
            const sum = c => c.match(/[\\d.]+/g).slice(0, 3).reduce((s, v) => s + Number(v), 0);
            return (sum(colours[0]) < 384) !== (sum(colours[1]) < 384);
        }}""",
        timeout=PATIENCE,
    )
    background, ticks, text = tab.evaluate(COLOURS)
    assert (luminance(background) < 0.1) == (scheme == "dark")
    assert contrast(background, ticks) >= 4.5
    assert contrast(background, text) >= 4.5
    context.close()


@pytest.fixture(scope="module")
def phone(browser, server):
    """A tab of a phone; pages are opened in it one after another."""
    context = browser.new_context(
        base_url=server,
        viewport={"width": 390, "height": 844},
        user_agent=PHONE,
        is_mobile=True,
        has_touch=True,
        device_scale_factor=2,
    )
    yield context.new_page()
    context.close()


@pytest.mark.parametrize("name", TITLES, ids=lambda name: name or "start")
def test_a_page_fits_a_phone(name, phone, settled):
    phone.goto(f"/{name}")
    expect(heading(phone, TITLES[name])).to_be_visible(timeout=PATIENCE)
    if name != "models":
        expect(chart(phone)).to_be_attached(timeout=PATIENCE)
    settled(phone)
    for frame in ("document.documentElement", "document.querySelector('[data-testid=stMain]')"):
        wide, room = phone.evaluate(f"[{frame}.scrollWidth, window.innerWidth]")
        assert wide <= room, frame
    plots = phone.locator(".js-plotly-plot")
    for k in range(plots.count()):
        box = plots.nth(k).bounding_box()
        assert box is None or box["x"] + box["width"] <= 390.5
    expect_no_traceback(phone)
