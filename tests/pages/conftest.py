"""The app without a browser: its pages, with a store of their own for every module of tests."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from merging.results.compute import service
from pages.shared import jobs

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 60
RUN_SECONDS = 30

Open = Callable[..., AppTest]


@pytest.fixture(scope="module")
def store_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this module's results are kept; a module may bring another."""
    return tmp_path_factory.mktemp("app") / "store"


@pytest.fixture(scope="module", autouse=True)
def _own_service(store_folder: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONE_BASIN_STORE", str(store_folder))
        patch.setenv("ONE_BASIN_WORKERS", "1")
        patch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
        before = dict(service._services)
        jobs._store.cache_clear()
        yield
        for folder in set(service._services) - set(before):
            service._services.pop(folder).close()
        jobs._store.cache_clear()


@pytest.fixture
def open_page() -> Open:
    """A function that opens a page with some choices made, as a link would."""

    def opened(page: str = "start", /, **choices: Any) -> AppTest:
        at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=RUN_SECONDS)
        for key, value in choices.items():
            at.session_state[key] = value
        at.run()
        if page != "start":
            at.switch_page(f"pages/{page}.py").run()
        return at

    return opened


@pytest.fixture
def wait_for() -> Callable[[AppTest, Callable[[AppTest], object], str], AppTest]:
    """A function that runs a page again until something is true of it."""

    def waiting(at: AppTest, there: Callable[[AppTest], object], what: str) -> AppTest:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not there(at):
            assert not at.exception, at.exception
            assert time.monotonic() < deadline, f"no {what}; the page says: {said(at)}"
            time.sleep(0.1)
            at.run()
        return at

    return waiting


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[service.Job]:
    """The jobs that pages ask for; nothing is computed."""
    found: list[service.Job] = []
    monkeypatch.setattr(service.Service, "submit", lambda self, job, owner="": found.append(job))
    return found


@pytest.fixture
def nothing_asked(asked: list[service.Job]) -> Iterator[None]:
    """Fails if a page asks for anything to be computed."""
    yield
    assert not [job.title for job in asked]


def said(at: AppTest) -> list[str]:
    """What a page says in captions, notices and errors."""
    kinds = (at.caption, at.info, at.warning, at.error, at.success)
    return [shown(str(element.value)) for kind in kinds for element in kind]


def shown(markdown: str) -> str:
    """What a reader sees of text that `pages.shared.words` wrote as Markdown."""
    plain = re.sub(r"\\([^\w\s]|_)", r"\1", markdown)
    return plain.replace("\u2060", "").replace("  \n", "\n")


def charts(at: AppTest) -> list[Any]:
    """The protocol messages of a page's charts."""
    return [element.proto for element in at.get("plotly_chart")]


def figure(chart: Any) -> dict[str, Any]:
    """A chart's figure."""
    read: dict[str, Any] = json.loads(chart.spec)
    return read


def labels(at: AppTest) -> list[str]:
    """The labels of a page's buttons."""
    return [button.label for button in at.button]


def pick(at: AppTest, label: str) -> Any:
    """The button with this label."""
    (button,) = [button for button in at.button if button.label == label]
    return button
