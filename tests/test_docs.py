"""The documents: their examples run, their commands and links are there, their names are right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
]
PAGES += sorted((ROOT / "docs").glob("*.md"))
README = ROOT / "README.md"


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """Line number and text of every block of a language."""
    text = page.read_text("utf-8")
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text[: match.start(1)].count("\n"), match[1]) for match in found]


EXAMPLES = {
    f"{page.name}:{line + 1}": (page, line, text)
    for page in PAGES
    for line, text in blocks(page, "python")
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_example_runs(example):
    page, line, text = EXAMPLES[example]
    # Empty lines put the block where it is in the page, so that a traceback names its line.
    exec(compile("\n" * line + text, str(page), "exec", dont_inherit=True), {"__name__": "example"})


def test_the_readme_has_an_example():
    assert blocks(README, "python")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_in_the_makefile(page):
    text = page.read_text("utf-8")
    code = [match[0] for match in re.finditer(r"```sh\n.*?```|`[^`\n]+`", text, re.DOTALL)]
    named = {target for part in code for target in re.findall(r"(?:^|[`&\s])make ([a-z-]+)", part)}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))
    files = {link.split("#")[0] for link in links if "://" not in link and link[0] != "#"}
    assert not {file for file in files if not (page.parent / file).exists()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_headings_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]*#[^)\s]+)\)", page.read_text("utf-8")):
        file, _, anchor = link.partition("#")
        if "://" not in link:
            target = page.parent / file if file else page
            assert anchor in _anchors(target), link


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_fits_two_screens():
    assert len(README.read_text("utf-8").splitlines()) <= 90


def test_versions_of_the_readme_are_those_of_requirements():
    (pinned,) = re.findall(
        r"^torch==\S+", (ROOT / "requirements.txt").read_text("utf-8"), re.MULTILINE
    )
    named = re.findall(r"torch==[\d.]+\d", README.read_text("utf-8"))
    assert set(named) <= {pinned}


def test_tools_have_the_same_versions_everywhere():
    pins = {
        match for name in ("requirements-dev.txt", ".pre-commit-config.yaml")
        for match in re.findall(r"ruff==[\d.]+", (ROOT / name).read_text("utf-8"))
    }  # fmt: skip
    assert len(pins) == 1


def test_all_tensor_names_of_the_bundled_models_are_listed():
    from merging.models.architectures.registry import build_model
    from merging.models.zoo.pairs import RECIPES

    listed = _listed_names((ROOT / "docs/methods.md").read_text("utf-8"))
    named = {
        re.sub(r"(?<=\.)\d+(?=\.)", "k", name)
        for recipe in RECIPES.values()
        for name in build_model(recipe.config).state_dict()
    }
    statistics = {"running_mean", "running_var", "num_batches_tracked"}
    assert {name for name in named if name.rpartition(".")[2] not in statistics} <= listed


def _listed_names(text: str) -> set[str]:
    names = set()
    for span in re.findall(r"`([\w.{},]+)`", text):
        stem, brace, words = span.partition("{")
        names |= {stem + word for word in words.rstrip("}").split(",")} if brace else {span}
    return names


def test_every_architecture_is_described():
    from merging.models.architectures.registry import ARCHITECTURES

    text = (ROOT / "docs/methods.md").read_text("utf-8")
    assert not [a.title for a in ARCHITECTURES.values() if f"| {a.title} |" not in text]
