"""Foreign text reaches Streamlit's Markdown through one module, wherever a page hands it over."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PAGES = Path(__file__).resolve().parents[2] / "pages"
FILES = sorted(path for path in PAGES.rglob("*.py") if path.name != "words.py")

# What reads its first argument, and these keywords, as Markdown.
READS = {
    "badge", "button", "caption", "chat_input", "checkbox", "dialog", "download_button", "error",
    "expander", "file_uploader", "header", "info", "link_button", "markdown", "metric",
    "multiselect", "number_input", "page_link", "pills", "popover", "progress", "radio",
    "segmented_control", "segments", "select_slider", "selectbox", "slider", "spinner",
    "subheader", "success", "tabs", "text_area", "text_input", "title", "toast", "toggle",
    "warning", "write",
}  # fmt: skip
KEYWORDS = {"body", "captions", "delta", "help", "label", "text", "value"}
SHOWS_OPTIONS = {
    "pills",
    "radio",
    "segmented_control",
    "segments",
    "select_slider",
}  # others show their options as plain text


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PAGES).as_posix())
def test_nothing_foreign_is_read_as_markdown(path):
    found = [
        f"{path.name}:{call.lineno}: {ast.unparse(given)}"
        for call in _calls(ast.parse(path.read_text("utf-8")))
        for given in _read_by(call)
        if not _is_ours(given)
    ]
    assert not found, "write foreign text with pages.shared.words: " + "; ".join(found)


def test_html_is_never_let_through():
    for path in FILES:
        text = path.read_text("utf-8")
        assert "unsafe_allow_html" not in text
        assert "st.html(" not in text
        assert "innerHTML" not in text


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node


def _read_by(call: ast.Call) -> Iterator[ast.expr]:
    """What a call hands to something that reads Markdown."""
    kind = ast.unparse(call.func).rpartition(".")[2]
    if kind not in READS:
        return
    if kind != "progress":
        yield from call.args[: 3 if kind == "metric" else 1]  # label, value and change of a metric
    for keyword in call.keywords:
        if keyword.arg == "value" and kind != "metric":
            continue
        if keyword.arg in KEYWORDS or (keyword.arg == "format_func" and kind in SHOWS_OPTIONS):
            yield keyword.value


def _is_ours(given: ast.expr) -> bool:
    """Whether an expression holds nothing but text of the pages' own, numbers, and escaped text."""
    if isinstance(given, ast.Constant):
        return True
    if isinstance(given, ast.Name):
        return given.id.isupper()
    if isinstance(given, ast.Attribute):
        name = given.value
        if isinstance(name, ast.Name) and name.id == "words":
            return True  # words.plain as a function of its own
        is_lookup = given.attr == "__getitem__" and _is_ours(name)
        return is_lookup or ast.unparse(given) == "str.capitalize"
    if isinstance(given, ast.JoinedStr):
        return all(_is_shown(part) for part in given.values)
    if isinstance(given, ast.IfExp):
        return _is_ours(given.body) and _is_ours(given.orelse)
    if isinstance(given, ast.BinOp):
        return _is_ours(given.left) and _is_ours(given.right)
    if isinstance(given, ast.Lambda):
        return _is_ours(given.body)
    return isinstance(given, ast.Call) and ast.unparse(given.func).startswith("words.")


def _is_shown(part: ast.expr) -> bool:
    """Whether a part of a formatted string is ours, or a number: text has no numeric format."""
    if not isinstance(part, ast.FormattedValue):
        return _is_ours(part)
    spec = part.format_spec
    is_number = isinstance(spec, ast.JoinedStr) and ast.unparse(spec)[-2] in "defg%,"
    return is_number or _is_ours(part.value)
