"""The command line: which commands there are, and what they print."""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from merging.cli import arguments as cli_arguments
from merging.cli import commands, fuse, replay
from merging.cli.arguments import _add_choices
from merging.cli.session import Session
from merging.files.user_function import OWN_DATA, OWN_MODEL, is_function
from merging.schema.errors import MergingError

_COMMANDS: dict[str, Callable[[Namespace, Session], dict[str, Any]]] = {
    "inspect": commands.inspect,
    "doctor": commands.doctor,
    "match": commands.match,
    "interpolate": commands.interpolate,
    "surface": commands.surface,
    "connect": commands.connect,
    "merge": commands.merge,
    "fuse": fuse.fuse,
    "replay": replay.replay,
}


_MOST_SHOWN = 12


def main(words: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        words: The command line, without the program's name; this process's own by default.

    Returns:
        0, or 1 if something is wrong, or if a replayed result differs.
    """
    arguments = _parser().parse_args(words)
    for variable, name in ((OWN_MODEL, "model"), (OWN_DATA, "data")):
        given = getattr(arguments, name, None) or ""
        if is_function(given):
            os.environ[variable] = given
            sys.path.insert(0, str(Path.cwd()))
    try:
        session = Session()
        found = _COMMANDS[arguments.command](arguments, session)
        if arguments.recipe_out:
            session.write_recipe(Path(arguments.recipe_out))
    except (MergingError, OSError) as error:
        print(f"one-basin: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(found))
    else:
        for note in session.notes:
            print(note, file=sys.stderr)
        print("\n".join(_lines(found)))
    return int(found.get("equal") is False)


def _lines(found: dict[str, Any], indent: str = "") -> list[str]:
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


def _parser() -> ArgumentParser:
    parser = ArgumentParser("python -m merging", description="Line up two networks and merge them.")
    children = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, command in _COMMANDS.items():
        words = (command.__doc__ or "").split("\n")[0]
        child = children.add_parser(name, help=words, description=words)
        child.add_argument("--json", action="store_true", help="print JSON")
        child.add_argument("--recipe-out", metavar="FILE", help="write the result's recipe")
        child.add_argument(
            "--model",
            metavar="ARCHITECTURE",
            help="package.module:function that returns a model and its example inputs, or "
            "torchvision:name, or timm:name; bundled families, .pt2 archives and Hugging Face "
            "folders need none",
        )
        if name == "replay":
            child.add_argument("recipe", help="a file of --recipe-out")
            continue
        if name == "fuse":
            cli_arguments.add_arguments(child)
            continue
        child.add_argument(
            "models", nargs="+", help="two checkpoints (files or folders), or a bundled pair's name"
        )
        child.add_argument(
            "--data",
            help="a bundled data set's name, a file of examples, or package.module:function that "
            "returns inputs and targets",
        )
        child.add_argument(
            "--spec", metavar="FILE", help="a permutation spec as JSON, in place of the derived one"
        )
        child.add_argument(
            "--freeze",
            action="append",
            default=[],
            metavar="GROUP",
            help="a permutation group to leave as it is; may be given several times",
        )
        if name == "inspect":
            child.add_argument("--spec-out", metavar="FILE", help="write the spec as JSON")
        if name not in ("inspect", "doctor"):
            _add_choices(child, name)
    return parser
