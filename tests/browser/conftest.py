"""A server of this app, a Chromium, and a page of it for every browser test.

`python tests/browser/conftest.py` writes the path of the Chromium that the tests will use, and
fails where there is none that starts; `make test` asks so before it installs one.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MAC = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-quic",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
    # Surfaces in 3-D need WebGL, here without a graphics card.
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]
START_SECONDS = 60
PATIENCE_SECONDS = 30
FAILED = pytest.StashKey[bool]()
DEBOUNCE_MILLISECONDS = 155  # Streamlit waits for so long before it acts on what was typed


def find_chromium(playwright: Playwright) -> str | None:
    """The first Chromium that starts: $CHROMIUM, one on the path, or Playwright's own."""
    if named := os.environ.get("CHROMIUM"):
        return named if _starts(named) else None
    installed = (shutil.which(name) for name in NAMES)
    candidates = (*installed, str(MAC), playwright.chromium.executable_path)
    return next((path for path in candidates if path and _starts(path)), None)


def _starts(executable: str) -> bool:
    """Whether it runs at all: a browser whose libraries are missing does not."""
    try:
        asked = subprocess.run(
            [executable, "--version"], capture_output=True, timeout=PATIENCE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder `browser`, so that `-m "not browser"` leaves them out."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of this app with a store of its own; it ends with the session."""
    with serving(tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[str]:
    """The address of a server that nobody has visited yet."""
    with serving(tmp_path) as address:
        yield address


@contextmanager
def serving(folder: Path, *words: str, **settings: str) -> Iterator[str]:
    """The address of a server whose store is in a folder.

    The words stand on the app's own command line, the settings in its environment.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "app.py"]
    command += ["--server.port", str(port), "--server.address", "127.0.0.1"]
    command += ["--", *words]
    environment = {**os.environ, "ONE_BASIN_STORE": str(folder / "store"), "ONE_BASIN_WORKERS": "1"}
    environment |= settings
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{address}/_stcore/health", process, log)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    pytest.fail(f"the app did not start; its log says:\n{log.read_text(errors='replace')}")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    with sync_playwright() as playwright:
        executable = find_chromium(playwright)
        if executable is None:
            pytest.fail("no Chromium that starts was found; `make test` installs one")
        chromium = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note on every test whether it failed, for the `page` fixture."""
    report = yield
    item.stash.setdefault(FAILED, False)
    item.stash[FAILED] |= report.failed
    return report


@pytest.fixture
def page(
    browser: Browser, server: str, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Page]:
    """An empty tab of a new browser context, whose relative addresses are those of the app.

    Where the test fails, a screenshot and a trace are left in its `tmp_path`.
    """
    context = browser.new_context(base_url=server, viewport={"width": 1280, "height": 900})
    context.set_default_timeout(1000 * PATIENCE_SECONDS)
    context.tracing.start(screenshots=True, snapshots=True)
    tab = context.new_page()
    yield tab
    if request.node.stash.get(FAILED, False):
        tab.screenshot(path=tmp_path / "failed.png", full_page=True)
        context.tracing.stop(path=tmp_path / "trace.zip")
        sys.stderr.write(f"\nScreenshot and trace: {tmp_path}\n")
    else:
        context.tracing.stop()
    context.close()


@pytest.fixture(scope="session")
def settled() -> Callable[[Page], Page]:
    """A function that waits until what was done to a page has had its effect."""
    return _settle


def _settle(page: Page) -> Page:
    """Wait as Streamlit's own tests do.

    A page with a fragment that runs by itself is never quite still: there, expect visible text.
    """
    page.wait_for_timeout(DEBOUNCE_MILLISECONDS)
    app = page.locator("[data-testid=stApp][data-test-connection-state=CONNECTED]")
    app.wait_for(state="attached")
    page.locator("[data-test-script-state=notRunning]").first.wait_for(state="attached")
    return page


if __name__ == "__main__":
    with sync_playwright() as started:
        found = find_chromium(started)
    sys.stdout.write(f"{found}\n" if found else "")
    sys.exit(found is None)
