"""Lines of Python and words of a shell, as all parts of a request are written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from merging.schema.errors import UnknownNameError

_LINE = 88
Writer = TypeVar("Writer")


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


def flag(name: str, value: Any, default: Any) -> list[str]:
    """Return the words `--name value` of a command; none for the default."""
    return [f"--{name}", str(value)] if value != default else []


def find_writer(writers: Mapping[str, Writer], task: str, what: str) -> Writer:
    """Look up what writes requests of a kind.

    Args:
        writers: What there is, by task.
        task: The request's task.
        what: What it writes, for the message.

    Returns:
        The writer.

    Raises:
        UnknownNameError: If there is none.
    """
    if task not in writers:
        raise UnknownNameError(
            f"there is no {what} for the task {task!r}; there is for {', '.join(writers)}"
        )
    return writers[task]
