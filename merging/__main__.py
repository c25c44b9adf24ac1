"""One Basin without a browser: `python -m merging <command>`; `--help` lists the commands."""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from merging import commands, fuse_command
from merging.errors import MergingError
from merging.methods import METHOD_CARDS
from merging.own_code import OWN_DATA, OWN_MODEL, is_function
from merging.paths import PATH_CARDS
from merging.session import Session

_COMMANDS: dict[str, Callable[[Namespace, Session], dict[str, Any]]] = {
    "inspect": commands.inspect,
    "doctor": commands.doctor,
    "match": commands.match,
    "interpolate": commands.interpolate,
    "surface": commands.surface,
    "connect": commands.connect,
    "merge": commands.merge,
    "fuse": fuse_command.fuse,
    "replay": commands.replay,
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
            fuse_command.add_arguments(child)
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


def _add_choices(child: ArgumentParser, name: str) -> None:
    default = "weight"
    child.add_argument("--method", default=default, choices=[*METHOD_CARDS, "naive"])
    child.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the method; METHOD.NAME=VALUE where there are several",
    )
    child.add_argument("--seed", type=int, default=0)
    if name in ("interpolate", "merge", "surface"):
        choices = ["interpolated", "reset", *([] if name == "surface" else ["repair", "rescale"])]
        child.add_argument("--statistics", default="interpolated", choices=choices)
    if name == "connect":
        child.add_argument("--kind", default="bezier", choices=list(PATH_CARDS))
        child.add_argument("--path-option", action="append", default=[], metavar="NAME=VALUE")
    if name in ("connect", "interpolate", "surface"):
        child.add_argument("--split", default="test", choices=["train", "test"])
    if name == "interpolate":
        child.add_argument("--lams", type=int, default=25, help="positions from A to B")
        child.add_argument(
            "--overshoot", type=float, default=0.0, help="how far to go on beyond both models"
        )
    if name == "surface":
        child.add_argument("--level", type=int, default=1, choices=range(4))
        child.add_argument("--margin", type=float, default=0.25, help="share of the larger side")
        child.add_argument(
            "--points",
            metavar="MODELS",
            help="what spans the plane, by commas: a, b, or a method for B as it aligns it; three, "
            "or one for random directions around it",
        )
        child.add_argument("--shown", metavar="MODELS", help="further models to draw")
    if name == "merge":
        child.add_argument("--lam", type=float, default=0.5)
    if name in ("match", "merge"):
        child.add_argument(
            "--out", metavar="FILE", help="where to write; .safetensors, .pt, or of match .npz"
        )


if __name__ == "__main__":
    sys.exit(main())
