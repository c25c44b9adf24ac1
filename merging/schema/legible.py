"""Foreign text as a person can read it: bounded, and with nothing in it that cannot be seen.

Names of files, tensors and layers come from strangers. Written as they are, a megabyte of one would
fill a page, a line break would begin a new sentence, and a mark of writing direction would turn
what stands beside it round.
"""

from __future__ import annotations

import re
import unicodedata

MOST = 2000  # characters of a text
LONGEST_WORD = 160  # characters without a space between

_UNSEEN = {"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"}  # control, format, surrogate, none, separators
_LONG_WORD = re.compile(rf"\S{{{LONGEST_WORD + 1},}}")


def legible(text: object, *, most: int = MOST, lines: bool = True) -> str:
    r"""Write foreign text so that it can be read, and cannot be taken for something else.

    Args:
        text: A name, or a message with names in it.
        most: Characters that are kept; of words without a space the middle is left out as well.
        lines: Whether line breaks stay.

    Returns:
        The text; characters that cannot be seen are written as Python writes them, `\u202e`.

    Example:
        >>> legible("a" * 5000, most=8)
        'aaaaaaa…'
        >>> legible("weight\u202ethgiew", lines=False)
        'weight\\u202ethgiew'
    """
    whole = str(text)
    kept = whole if len(whole) <= most else f"{whole[: most - 1]}…"
    seen = "".join(_seen(letter, lines) for letter in kept)
    return _LONG_WORD.sub(lambda word: _without_middle(word[0]), seen)


def _seen(letter: str, lines: bool) -> str:
    is_kept = lines and letter == "\n"
    if is_kept or unicodedata.category(letter) not in _UNSEEN:
        return letter
    return letter.encode("unicode_escape").decode("ascii")


def _without_middle(word: str) -> str:
    end = LONGEST_WORD // 4
    return f"{word[: LONGEST_WORD - end - 1]}…{word[-end:]}"
