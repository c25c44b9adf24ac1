"""Lines of Python that are written, and what they need."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
    """Write a call on one line, or one argument on a line where that would be long.

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
    """Write a string as Python does, with double quotes."""
    return json.dumps(value, ensure_ascii=False)


def options(chosen: Mapping[str, Any]) -> list[str]:
    """Return the argument for options, where there are any.

    Args:
        chosen: The options that are not at their defaults.

    Returns:
        One word or none.

    Example:
        >>> options({"density": 0.5, "then": "TIES"})
        ['options={"density": 0.5, "then": "TIES"}']
    """
    pairs = ", ".join(
        f"{text(name)}: {text(value) if isinstance(value, str) else repr(value)}"
        for name, value in chosen.items()
    )
    return [f"options={{{pairs}}}"] if chosen else []


def seed(number: int) -> list[str]:
    """Return the argument for a seed, where it is not 0."""
    return [f"seed={number}"] if number else []


def read_model(target: str, file: str, architecture: str) -> str:
    """Write the line that reads the first model of a file.

    Args:
        target: The name that the model gets.
        file: The file.
        architecture: What `--model` takes; empty where the file says it.

    Returns:
        The line.
    """
    given = f", architecture={text(architecture)}" if architecture else ""
    return f"{target} = merging.read_model({text(file)}{given})"


def read_data(target: str, data: str, model: str, *, is_bundled: bool) -> Written:
    """Write the line that reads examples, where there are any.

    Args:
        target: What the examples are assigned to; `{}` stands for them.
        data: A bundled data set's name, a file's, or nothing.
        model: The name of the model that the examples are for.
        is_bundled: Whether the examples are bundled.

    Returns:
        The line and its import.
    """
    if is_bundled:
        line = target.format(f"load_dataset({text(data)})")
        return Written((line,), ("from merging.files.data.bundled import load_dataset",))
    if data:
        return Written((target.format(f"merging.read_examples({text(data)}, {model})"),))
    return Written(())
