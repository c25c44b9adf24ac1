"""What the server lets in and what it tells a browser: over the wire, and in a real browser."""

from __future__ import annotations

import contextlib
import http.client
import re
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
import torch
from playwright.sync_api import Page, expect
from safetensors.torch import save

from pages.shared.upload_limits import FILES_OF_SESSION
from tests.browser.conftest import serving

LINK = "![d](http://evil.example/d.png) [x](http://evil.example) :red[r] :material/home: $x$ <b>"


def ask(server: str, host: str, path: str = "/") -> tuple[int, dict[str, str], str]:
    """Status, headers and text of the answer to a request for a host."""
    parts = urlsplit(server)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=10)
    connection.request("GET", path, headers={"Host": host})
    with contextlib.closing(connection), connection.getresponse() as answer:
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, headers, answer.read().decode("utf-8", "replace")


@pytest.mark.parametrize("path", ["/", "/_stcore/health", "/_stcore/host-config", "/static/x.js"])
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "a@localhost", ""])
def test_a_foreign_name_that_is_pointed_here_gets_nothing(server, host, path):
    status, _, text = ask(server, host, path)
    assert status in (400, 403)
    assert status == 400 or "This server does not answer to the host" in text


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8501", "127.0.0.1:1", "[::1]:8501"])
def test_this_machine_s_own_names_are_answered(server, host):
    assert ask(server, host, "/_stcore/health")[0] == 200


@pytest.mark.parametrize("path", ["/", "/models", "/_stcore/health", "/static/none.js"])
def test_every_answer_says_what_a_browser_may_do(server, path):
    _, headers, _ = ask(server, "localhost", path)
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "SAMEORIGIN"
    assert headers["referrer-policy"] == "same-origin"
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'self'" in policy
    assert "'unsafe-eval'" not in policy
    assert "'unsafe-inline'" not in re.search("script-src[^;]*", policy)[0]


def test_a_hostile_name_is_shown_as_it_is_and_fetches_nothing(
    server: str, page: Page, settled: Callable[[Page], Page]
):
    foreign: list[str] = []
    page.on("request", lambda r: foreign.append(r.url) if "evil.example" in r.url else None)
    page.goto("/models?models_where=Your+checkpoints")
    settled(page)
    files = [
        {"name": f"{LINK}.safetensors", "mimeType": "application/octet-stream", "buffer": data}
        for data in (b"no checkpoint", save({f"{LINK}.weight": torch.zeros(2)}))
    ]
    uploaders = page.get_by_test_id("stFileUploader").locator("input[type=file]")
    for k, file in enumerate(files):
        uploaders.nth(k).set_input_files([file])
        settled(page)
    alerts = page.get_by_test_id("stAlert").filter(has_text="evil.example")
    expect(alerts.first).to_be_visible(timeout=90_000)
    shown = alerts.first.inner_text().replace("\u2060", "")
    assert "![d](http://evil.example/d.png) [x](http://evil.example) :red[r]" in shown
    for inside in ("a", "img", "b", ".katex", "span[role=img]", ".stMarkdownColoredText"):
        assert alerts.locator(f"[data-testid=stMarkdownContainer] {inside}").count() == 0, inside
    assert foreign == []


def put(page: Page, session: str, file: str, size: int) -> tuple[int, str]:
    """Put a file into a session without any widget, as its own page could."""
    script = """async ([path, size]) => {
      const xsrf = (document.cookie.match(/_streamlit_xsrf=([^;]+)/) || [])[1] || "";
      const form = new FormData();
      form.append("x", new File([new Uint8Array(size)], "x.bin"));
      const answer = await fetch(path, {method: "PUT", body: form,
        headers: {"X-Xsrftoken": xsrf}});
      return [answer.status, await answer.text()];
    }"""
    status, text = page.evaluate(script, [f"/_stcore/upload_file/{session}/{file}", size])
    return status, text


@pytest.fixture
def own_session(server: str, page: Page, settled: Callable[[Page], Page]) -> str:
    """The session of the page, as its own uploads name it."""
    seen: list[str] = []
    page.on("request", lambda r: seen.append(r.url) if "/_stcore/upload_file/" in r.url else None)
    page.goto("/models?models_where=Your+checkpoints")
    settled(page)
    file = {"name": "a.pt", "mimeType": "application/octet-stream", "buffer": b"no checkpoint"}
    page.get_by_test_id("stFileUploader").locator("input[type=file]").first.set_input_files([file])
    settled(page)
    return re.search("/upload_file/([^/]+)/", seen[0])[1]


def test_files_beyond_the_limit_of_a_session_are_refused_in_words(page: Page, own_session: str):
    answers = [put(page, own_session, f"file-{k}", 10) for k in range(FILES_OF_SESSION + 1)]
    assert {status for status, _ in answers[: FILES_OF_SESSION - 1]} == {204}
    status, words = answers[-1]
    assert status == 413
    assert f"You have {FILES_OF_SESSION} files here, and that is the most" in words


def test_bytes_beyond_the_limit_of_a_session_are_refused_in_words(page: Page, own_session: str):
    answers = [put(page, own_session, f"file-{k}", 60 << 20) for k in range(7)]
    assert [status for status, _ in answers] == [204] * 6 + [413]
    assert "All your files together may have 384 MB; 360 MB are here already" in answers[-1][1]


def test_a_page_says_why_a_file_was_refused(tmp_path, browser, settled):
    with serving(tmp_path, STREAMLIT_SERVER_MAX_UPLOAD_SIZE="1") as server:
        page = browser.new_page(base_url=server)
        page.goto("/merge?merge_family=Your+checkpoints")
        settled(page)
        file = {"mimeType": "application/octet-stream", "buffer": bytes(900_000)}
        files = [{"name": f"{k}.pt", **file} for k in range(9)]
        page.locator(".st-key-merge_files input[type=file]").set_input_files(files)
        words = page.get_by_test_id("stAlert").filter(has_text="All your files together may have")
        expect(words).to_contain_text("6 MB", timeout=60_000)
        page.close()
