"""The command line: which commands there are, and what they print."""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from merging.cli import arguments, commands, fusion_arguments
from merging.cli.fuse import fuse
from merging.cli.replay import replay
from merging.cli.session import Answer, Session, open_session
from merging.files.user_function import OWN_DATA, OWN_MODEL, is_function
from merging.schema.errors import MergingError


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        declare: Says which arguments there are.
        read: Makes a frozen record of them.
        run: Does what the record asks for; its first line of documentation is the help text.
    """

    declare: Callable[[ArgumentParser], None]
    read: Callable[[Namespace], Any]
    run: Callable[[Any, Session], Answer]

    @property
    def words(self) -> str:
        """What the command does, in a sentence."""
        return (self.run.__doc__ or "").split("\n")[0]


COMMANDS: Mapping[str, Command] = MappingProxyType({
    "inspect": Command(arguments.add_inspect, arguments.read_inspect, commands.inspect),
    "doctor": Command(arguments.add_pair, arguments.read_doctor, commands.doctor),
    "match": Command(arguments.add_match, arguments.read_match, commands.match),
    "interpolate": Command(
        arguments.add_interpolate, arguments.read_interpolate, commands.interpolate
    ),
    "surface": Command(arguments.add_surface, arguments.read_surface, commands.surface),
    "connect": Command(arguments.add_connect, arguments.read_connect, commands.connect),
    "merge": Command(arguments.add_merge, arguments.read_merge, commands.merge),
    "fuse": Command(fusion_arguments.add_fuse, fusion_arguments.read_fuse, fuse),
    "replay": Command(arguments.add_replay, arguments.read_replay, replay),
})

_MOST_SHOWN = 12


def main(words: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        words: The command line, without the program's name; this process's own by default.

    Returns:
        0, or 1 if something is wrong, or if a replayed result differs.
    """
    given = parser().parse_args(words)
    command = COMMANDS[given.command]
    try:
        _let_own_functions(given)
        answer = command.run(command.read(given), open_session())
        if given.recipe_out and answer.recipe is not None:
            answer.recipe.write(Path(given.recipe_out))
    except (MergingError, OSError) as error:
        print(f"one-basin: {error}", file=sys.stderr)
        return 1
    _show(answer, as_json=given.json)
    return int(answer.failed)


def _let_own_functions(given: Namespace) -> None:
    """Allow the functions that the command line names: they make a model, or examples."""
    for variable, name in ((OWN_MODEL, "model"), (OWN_DATA, "data")):
        function = getattr(given, name, None) or ""
        if is_function(function):
            os.environ[variable] = function
            sys.path.insert(0, str(Path.cwd()))


def _show(answer: Answer, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(answer.found))
        return
    for note in answer.notes:
        print(note, file=sys.stderr)
    print("\n".join(_lines(answer.found)))


def _lines(found: Mapping[str, Any], indent: str = "") -> list[str]:
    lines = []
    for name, value in found.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}:", *_lines(value, indent + "  ")]
        elif isinstance(value, (list, tuple)):
            shown = ", ".join(_plain(item) for item in value[:_MOST_SHOWN])
            rest = f" … {len(value)} in all" if len(value) > _MOST_SHOWN else ""
            lines.append(f"{indent}{name}: {shown}{rest}")
        else:
            lines.append(f"{indent}{name}: {_plain(value)}")
    return lines


def _plain(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def parser() -> ArgumentParser:
    """Return the parser of all commands."""
    whole = ArgumentParser("python -m merging", description="Line up two networks and merge them.")
    children = whole.add_subparsers(dest="command", required=True, metavar="command")
    for name, command in COMMANDS.items():
        child = children.add_parser(name, help=command.words, description=command.words)
        arguments.add_shared(child)
        command.declare(child)
    return whole
