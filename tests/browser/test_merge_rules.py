"""Every rule on files of a person, from the upload to the merged file.

A page is opened once per kind of models. What is taken away is read by safetensors alone, and
compared with what the library makes of the same models when it is called directly.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import safetensors.torch
import torch
from playwright.sync_api import Browser, Page, expect

from merging.results import requests
from merging.schema.cards.fusion.table import RULE_CARDS, find_card
from tests.own_families import bring, fused

COMPUTING = 60_000  # milliseconds
PAUSE = 100  # milliseconds between downloads: Chromium drops the twentieth in a second
FACTOR = requests.FIRST_FACTOR
NETWORKS = tuple(name for name, card in RULE_CARDS.items() if card.on_networks)
OF_RUNS = tuple(name for name, card in RULE_CARDS.items() if card.family == "trajectory")
OF_TWO = ("slerp",)
PLAIN = tuple(n for n in RULE_CARDS if n not in (*OF_RUNS, *OF_TWO))


@dataclass(frozen=True)
class Stage:
    """What is merged by which rules.

    Attributes:
        kind: Which models are own.
        rules: The rules.
        order: What the units are lined up by first, if anything.
        count: How many of the models are merged.
        folder: Whether the files are zip files with a card and a recipe.
        wide_as: Number of the model whose widths the result is to have, where they differ.
    """

    kind: str
    rules: tuple[str, ...]
    order: str = ""
    count: int = 3
    folder: bool = False
    wide_as: int = 0

    @property
    def members(self) -> tuple[int, ...]:
        """Numbers of the models, first the one whose widths the result has."""
        return (self.wide_as, *(k for k in range(self.count) if k != self.wide_as))


STAGES = {
    "fine-tuned": Stage("fine-tuned", PLAIN),
    # Of rules that go by tensors alone one is enough here; what others need moves with the units.
    "MergeMany": Stage("apart", ("average", "fisher", "regmean", *NETWORKS), "merge many"),
    "cycle-consistent": Stage("apart", ("average",), "cycle consistent"),
    "two, each to the first": Stage("apart", OF_TWO, "first", count=2),
    "other widths": Stage("widths", ("transport",), wide_as=1),
    "a run": Stage("run", OF_RUNS, count=5, folder=True),
}
TAKEN = [(name, rule) for name, stage in STAGES.items() for rule in stage.rules]
ALONE = [
    title for name, title in requests.REFERENCE_TITLES.items() if name not in ("base", "joint")
]
Settle = Callable[[Page], Page]


@dataclass(frozen=True)
class Taken:
    """What a stage gave.

    Attributes:
        rows: First column of the table of results.
        files: By rule, the file that was downloaded.
        lacking: What the page says of rules that cannot be used.
    """

    rows: list[str]
    files: dict[str, Path]
    lacking: str


class Visit:
    """One page with uploaded models, on which stages are gone through."""

    def __init__(self, page: Page, settle: Settle, folder: Path) -> None:
        self.page, self._settle, self._folder = page, settle, folder

    def bring(self, kind: str) -> None:
        """Upload models, their base and examples."""
        page, self.own = self.page, bring(kind, self._folder)
        page.goto("/merge?merge_family=Your+checkpoints&merge_view=What+they+do&merge_tuned=false")
        self._give("merge_files", self.own.files)
        if self.own.base_file is not None:
            self._give("merge_base_file", [self.own.base_file])
        expect(page.locator(".st-key-merge_data")).to_be_visible(timeout=COMPUTING)
        self._settle(page)
        if kind == "run":
            page.locator(".st-key-merge_run label").first.click()
        self._choose("merge_data", "A file of mine")
        self._give("merge_file_data", [self.own.examples])
        expect(page.get_by_text("240 examples of 3 classes")).to_be_visible(timeout=COMPUTING)
        self._settle(page)

    def go_through(self, name: str, stage: Stage) -> Taken:
        """Choose models, order and rules, wait for the results, and take the models away."""
        self._view("What they do")
        self._press("[class*=st-key-merge_members_own]", self._members(stage.count))
        self._settle(self.page)
        if stage.kind == "widths":
            wide_as = self.own.files[stage.wide_as].name
            self._choose("merge_width_of_3", wide_as)
        if stage.kind == "apart":
            titles = {"": "As they are", **requests.ORDER_TITLES}
            self._choose("merge_order", titles[stage.order])
        self._press("[class*=st-key-merge_rules]", [find_card(rule).title for rule in stage.rules])
        self._settle(self.page)
        lacking = self._lacking()
        self._view("Rules")
        rows = self._rows()
        self._view("Take away")
        return Taken(rows, self._files(stage), lacking)

    def _members(self, count: int) -> list[str]:
        return [path.name for path in self.own.files[:count]]

    def _give(self, key: str, files: Sequence[Path]) -> None:
        self.page.locator(f".st-key-{key} input[type=file]").set_input_files(files)
        for path in files:
            expect(self.page.locator(f".st-key-{key}").get_by_text(path.name)).to_be_attached()
        self._settle(self.page)

    def _choose(self, key: str, name: str) -> None:
        """Choose one of a row of buttons."""
        self.page.locator(f".st-key-{key}").get_by_role("radio", name=name, exact=True).click()
        self._settle(self.page)

    def _view(self, name: str) -> None:
        self._choose("merge_view", name)

    def _press(self, place: str, titles: Sequence[str]) -> None:
        """Leave exactly these buttons of a row pressed."""
        for button in self.page.locator(place).get_by_role("button").all():
            if (button.get_attribute("aria-pressed") == "true") != (button.inner_text() in titles):
                button.click()

    def _lacking(self) -> str:
        box = self.page.get_by_test_id("stExpander").filter(has_text="cannot be used here")
        if not box.count():
            return ""
        details = box.locator("details")
        if details.get_attribute("open") is None:
            box.locator("summary").click()
        return details.inner_text()

    def _rows(self) -> list[str]:
        """The first column of the table, from what its button downloads."""
        button = self.page.locator(".st-key-merge_table_csv button")
        expect(button).to_be_visible(timeout=COMPUTING)
        expect(self.page.locator(".st-key-merge_scores_progress")).to_have_count(
            0, timeout=COMPUTING
        )
        self._settle(self.page)
        with self.page.expect_download() as started:
            button.click()
        text = Path(started.value.path()).read_text("utf-8")
        return [row["Model"] for row in csv.DictReader(io.StringIO(text))]

    def _files(self, stage: Stage) -> dict[str, Path]:
        page, rules = self.page, stage.rules
        forms = {True: "Zip file with model card and recipe", False: "Safetensors alone"}
        self._choose("merge_take_what", forms[stage.folder])
        if len(rules) > 1:
            page.get_by_role("combobox", name="Merged by").click()
            page.get_by_role("option", name="Select all").click()
            page.keyboard.press("Escape")
            self._settle(page)
        page.locator(".st-key-merge_take_make button").click()
        buttons = page.get_by_role("button", name=re.compile("^Download merged-"))
        expect(buttons).to_have_count(len(rules), timeout=COMPUTING)
        self._settle(page)
        found = {}
        for rule in rules:
            button = page.get_by_role("button", name=re.compile(f"^Download merged-{rule}-"))
            page.wait_for_timeout(PAUSE)
            with page.expect_download() as started:
                button.click()
            found[rule] = self._folder / started.value.suggested_filename
            started.value.save_as(found[rule])
        return found


@pytest.fixture(scope="module")
def visits(
    browser: Browser, server: str, tmp_path_factory: pytest.TempPathFactory, settled: Settle
) -> Iterator[Callable[[str], Visit]]:
    """A function that opens a page once per kind of models."""
    opened: dict[str, Visit] = {}

    def visit(kind: str) -> Visit:
        if kind not in opened:
            page = browser.new_context(base_url=server).new_page()
            page.set_default_timeout(30_000)
            opened[kind] = Visit(page, settled, tmp_path_factory.mktemp(kind))
            opened[kind].bring(kind)
        return opened[kind]

    yield visit
    for one in opened.values():
        one.page.context.close()


@pytest.fixture(scope="module")
def taken(visits: Callable[[str], Visit]) -> Callable[[str], Taken]:
    """A function that goes through a stage once."""
    found: dict[str, Taken] = {}

    def take(name: str) -> Taken:
        if name not in found:
            stage = STAGES[name]
            found[name] = visits(stage.kind).go_through(name, stage)
        return found[name]

    return take


@pytest.mark.parametrize("name", STAGES)
def test_every_rule_has_its_row_beside_the_models_and_their_ensembles(name, taken, visits):
    stage = STAGES[name]
    files = visits(stage.kind).own.files[: stage.count]
    wanted = {find_card(rule).title for rule in stage.rules}
    assert {*wanted, *ALONE, *(path.name for path in files)} <= set(taken(name).rows)


def weights_of(file: Path) -> dict[str, torch.Tensor]:
    """The weights of a file, or of the zip file that has them beside a card and a recipe."""
    if file.suffix == ".safetensors":
        return safetensors.torch.load_file(file)
    with zipfile.ZipFile(file) as archive:
        assert set(archive.namelist()) == {"README.md", "model.safetensors", "recipe.json"}
        return safetensors.torch.load(archive.read("model.safetensors"))


@pytest.mark.parametrize(("name", "rule"), TAKEN)
def test_the_file_of_every_rule_is_what_the_library_makes(name, rule, taken, visits):
    stage = STAGES[name]
    merged = weights_of(taken(name).files[rule])
    models = visits(stage.kind).own.of(stage.members)
    weights = [FACTOR] * stage.count if find_card(rule).weights == "scales" else None
    expected = fused(rule, models, weights=weights, order=stage.order)
    assert set(merged) == set(expected)
    for key, value in expected.items():
        torch.testing.assert_close(merged[key], value, rtol=1e-5, atol=1e-6)
    own = {key.removeprefix(models.prefix): value for key, value in merged.items()}
    models.model.load_state_dict(own, strict=True)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fine-tuned", "SLERP takes 2 models"),
        ("fine-tuned", "SWA, EMA, LAWA need the checkpoints of one run"),
        ("two, each to the first", "Krum needs at least 3 models"),
        ("other widths", "need models of one width"),
        ("MergeMany", "Gradient matching, Removing tasks need a base model"),
    ],
)
def test_a_rule_that_cannot_be_used_says_what_it_lacks(name, words, taken):
    assert words in " ".join(taken(name).lacking.split())
