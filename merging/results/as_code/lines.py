"""Lines of Python that are written, and what they need."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

_LINE = 88


@dataclass(frozen=True)
class Written:
    """Lines of Python, and what they need to be imported.

    Attributes:
        lines: The lines.
        imports: Whole import lines, beside `import merging`.
    """

    lines: tuple[str, ...]
    imports: tuple[str, ...] = ()


def call(target: str, function: str, words: Sequence[str], *, of: str = "merging.") -> str:
    """A call on one line, or with an argument list of its own lines where that would be long.

    Args:
        target: The name that the result gets.
        function: The function.
        words: Its arguments.
        of: What stands before the function's name.

    Returns:
        The line or lines.

    Example:
        >>> call("merged", "fuse", ['"average"', "models=models"])
        'merged = merging.fuse("average", models=models)'
    """
    line = f"{target} = {of}{function}({', '.join(words)})"
    if len(line) <= _LINE:
        return line
    arguments = "".join(f"    {word},\n" for word in words)
    return f"{target} = {of}{function}(\n{arguments})"


def text(value: str) -> str:
    """A string as Python writes it, with double quotes."""
    return json.dumps(value, ensure_ascii=False)
