"""Foreign text as Markdown: what a stranger writes in a name is read by people, not by browsers."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from merging.schema.legible import LONGEST_WORD, legible
from pages.shared import words

HOSTILE = [
    "![d](http://evil.example/d.png)",
    "[click](http://evil.example)",
    "<http://evil.example>",
    "http://evil.example/x",
    "HTTPS://evil.example",
    "www.evil.example",
    "someone@evil.example",
    "mailto:someone@evil.example",
    ":red[alarm] :red-background[alarm] :small[x] :help[x]",
    ":material/home: :smile: :streamlit:",
    "$x^2$ $$y$$",
    "<b>bold</b> <img src=x> &lt;",
    "# heading",
    "- item\n- item",
    "1. item\n2) item",
    "    code",
    "```\ncode\n```",
    "| a | b |\n|---|---|",
    "> quote",
    "heading\n===",
    "heading\n---",
    "**bold** __bold__ _it_ ~~gone~~",
    "`code`",
    "x -> y -- z <- w >= v",
    "[^1] and [ref]: http://evil.example",
    "\\![d](x)",
]

# Marks that Markdown reads, and what Streamlit looks for in text that was read already.
UNESCAPED = re.compile(r"(?<!\\)(?:\\\\)*[`*\[\]<>#|~$&!{}]")
FOUND_IN_TEXT = re.compile(
    r"https?://|www\.|@[-\w]+\.|:material[/_]|:streamlit:|:[\w+-]+:|:[a-zA-Z][\w-]*\\?\[|(?:^|\s)(?:->|<-|--|>=|<=|~=)",
    re.IGNORECASE,
)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_name_is_shown_as_it_is(text):
    written = words.plain(text)
    assert not UNESCAPED.search(written)
    assert not FOUND_IN_TEXT.search(_read(written))
    assert _seen(written) == text.replace("    code", "\u00a0\u00a0\u00a0\u00a0code")


@given(st.text(alphabet="ab1:/.@-_*[]()<>!$`\\ #~|&=+\n{}^", max_size=40))
@example("\\")
@example("a\\")
def test_any_text_is_shown_as_it_is(text):
    written = words.plain(text)
    assert not UNESCAPED.search(written)
    assert not FOUND_IN_TEXT.search(_read(written))
    lines = text.split("\n")
    indented = [len(line) - len(line.lstrip(" ")) for line in lines]
    wanted = ["\u00a0" * n + line[n:] for n, line in zip(indented, lines, strict=True)]
    assert _seen(written) == "\n".join(wanted)


@given(st.text(alphabet="a`\\ *", max_size=20))
def test_code_is_closed_by_its_own_fence_only(text):
    written = words.code(text)
    fence = re.match("`+", written)
    assert fence is not None
    inside = written[fence.end() : -fence.end()]
    assert fence[0] not in inside
    assert inside.strip() == text.strip()


def test_what_cannot_be_seen_is_written_out():
    assert legible("a\u202eb\u200bc\x00d\te") == r"a\u202eb\u200bc\x00d\te"
    assert legible("a\nb") == "a\nb"
    assert legible("a\nb", lines=False) == r"a\nb"


def test_a_megabyte_of_a_name_is_shortened():
    assert len(words.plain("x" * 1_000_000)) <= 2 * LONGEST_WORD
    assert len(words.plain("x " * 1_000_000)) <= 2100
    message = f"{'n' * 1_000_000!r} is no checkpoint; choose another file"
    assert len(legible(message)) < 2100


def test_a_long_name_does_not_hide_what_comes_after_it():
    shown = legible(f"{'n' * 1000} is no checkpoint")
    assert shown.endswith("n is no checkpoint")


def _read(written: str) -> str:
    """The text that is left of Markdown without markup when it was read."""
    return re.sub(r"\\([^\w\s]|_)", r"\1", written)


def _seen(written: str) -> str:
    return _read(written).replace("\u2060", "").replace("  \n", "\n")
