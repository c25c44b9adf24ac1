"""The app in a browser: time to the first picture, reruns, memory and payload."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from benchmarks.memory import size_of

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "browser"))


@contextmanager
def _server() -> Iterator[tuple[str, psutil.Process]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as store:
        process = subprocess.Popen(
            [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)],
            cwd=ROOT,
            env={**os.environ, "ONE_BASIN_STORE": store},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        url = f"http://127.0.0.1:{port}"
        try:
            for _ in range(300):
                try:
                    urllib.request.urlopen(f"{url}/_stcore/health", timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.1)
            yield url, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(timeout=30)


def _first_picture(context: BrowserContext, url: str) -> tuple[float, Page]:
    page = context.new_page()
    start = time.perf_counter()
    page.goto(url)
    page.wait_for_selector(".js-plotly-plot .scatterlayer", timeout=60_000)
    return time.perf_counter() - start, page


_WATCH = """() => {
  const app = document.querySelector("[data-testid=stApp]");
  window.rerun = new Promise((done) => {
    let begun = 0;
    const watcher = new MutationObserver(() => {
      const state = app.dataset.testScriptState;
      if (state === "running" && !begun) begun = performance.now();
      if (state === "notRunning" && begun) {
        watcher.disconnect();
        done((performance.now() - begun) / 1000);
      }
    });
    watcher.observe(app, { attributes: true });
  });
}"""


def _rerun(page: Page) -> float:
    """Return the seconds from a changed seed's run to the page at rest, as the page sees them.

    Looking from outside misses runs that are over before one looks.
    """
    page.evaluate(_WATCH)
    page.locator(".st-key-seed button[data-testid=stNumberInputStepUp]").click()
    return float(page.evaluate("window.rerun"))


def _chromium(playwright: object) -> Browser:
    from conftest import FLAGS, find_chromium

    return playwright.chromium.launch(executable_path=find_chromium(playwright), args=FLAGS)


def measure() -> Iterator[str]:
    """Yield lines with the figures."""
    with _server() as (url, process), sync_playwright() as playwright:
        browser = _chromium(playwright)
        very_first, _ = _first_picture(browser.new_context(), url)
        cold = []
        for _ in range(3):
            context = browser.new_context()
            took, page = _first_picture(context, url)
            cold.append(took)
        warm = [_first_picture(context, url)[0] for _ in range(3)]
        yield f"Start, first picture of a fresh server: {very_first:.2f} s"
        yield f"Start, cold load: {statistics.median(cold):.2f} s (wanted: under 4 s)"
        yield f"Start, warm browser cache: {statistics.median(warm):.2f} s (wanted: under 3 s)"
        reruns = [_rerun(page) for _ in range(7)]
        yield f"Start, rerun: {1000 * statistics.median(reruns):.0f} ms (wanted: under 150 ms)"
        page.goto(f"{url}/align?pair=digits-mlp-256&seed=3")
        page.wait_for_selector("text=What each method reached", timeout=120_000)
        interface = process.memory_info().rss
        children = process.children(recursive=True)
        compute = size_of(children)
        yield f"interface process: {interface / 2**20:.0f} MB (wanted: under 400 MB)"
        yield (
            f"compute, {len(children)} processes together: {compute / 2**20:.0f} MB "
            "(wanted: under 1024 MB)"
        )
        browser.close()
