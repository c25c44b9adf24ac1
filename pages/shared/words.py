"""Foreign text on a page: the one place where it becomes Markdown that shows it as it is.

Streamlit reads what it is given as Markdown, with links, pictures, colours, icons and formulas. A
backslash keeps a mark from being read as one. What Streamlit looks for in the finished text, such
as addresses and icons, no backslash hides: a mark without width (U+2060) is put inside.
"""

from __future__ import annotations

import re

import streamlit as st

from merging.schema.errors import MergingError
from merging.schema.legible import MOST, legible

_JOINER = "\u2060"  # WORD JOINER: neither seen nor a place to break a line
_FOUND_IN_TEXT = re.compile(
    r"(?<=:)(?=\S)|(?<=www)(?=\.)|(?<=@)|(?<=[-<>~])(?=[-=>])", re.IGNORECASE
)
_MARKS = re.compile(r"[\\`*{}\[\]<>#|~&$!^]|(?<![^\W_])_|_(?![^\W_])")
_BEGINS_LINE = re.compile(r"^ *(?:[-+=](?=[-=\s\u2060]|$)|\d+(?=[.)](?:\s|$)))", re.MULTILINE)
_INDENT = re.compile(r"^ +", re.MULTILINE)


def plain(text: object, *, most: int = MOST) -> str:
    r"""Write text as Markdown that shows exactly this text, line breaks and indents included.

    Args:
        text: A name, a message, or anything else that may come from outside.
        most: Characters that are kept.

    Returns:
        Markdown without any markup, for everything of Streamlit's that reads Markdown.

    Example:
        >>> print(plain("![d](x) and head_weight"))
        \!\[d\](x) and head_weight
    """
    hidden = _FOUND_IN_TEXT.sub(_JOINER, legible(text, most=most))
    begun = _BEGINS_LINE.sub(_escape_first, _MARKS.sub(r"\\\g<0>", hidden))
    return _INDENT.sub(lambda m: "\u00a0" * len(m[0]), begun).replace("\n", "  \n")


def code(text: object) -> str:
    """Write text as Markdown that shows it in the type of code.

    Example:
        >>> code("model.")
        '`model.`'
    """
    shown = legible(text, lines=False)
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    space = " " if len(fence) > 1 or shown != shown.strip() or not shown else ""
    return f"{fence}{space}{shown}{space}{fence}"


def tell(error: MergingError) -> None:
    """Show an error as it is worded."""
    st.error(plain(error), icon=":material/error:")


def _escape_first(found: re.Match[str]) -> str:
    """Escape a list's mark; of a number, what follows it is what makes it a list's."""
    mark = found[0]
    return f"{mark}\\" if mark[-1].isdecimal() else f"{mark[:-1]}\\{mark[-1]}"
