"""What a command line may say of each command, and the frozen record that it becomes.

Every command but `fuse` has two functions here: one declares its arguments, one reads them.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from merging.cli import wanted
from merging.cli.wanted import Matching, Named, read_option
from merging.files.user_function import is_function
from merging.results import requests
from merging.schema.cards.matching import METHOD_CARDS
from merging.schema.cards.paths import PATH_CARDS
from merging.schema.cards.titles import NAIVE


def add_shared(child: ArgumentParser) -> None:
    """Declare what every command takes."""
    child.add_argument("--json", action="store_true", help="print JSON")
    child.add_argument(
        "--recipe-out", metavar="FILE", help="write how the result came to be, for replay"
    )
    child.add_argument(
        "--model",
        metavar="ARCHITECTURE",
        help="package.module:function that returns a model and its example inputs, or "
        "torchvision:name, or timm:name; bundled families, .pt2 archives and Hugging Face "
        "folders need none",
    )


def read_architecture(arguments: Namespace) -> str:
    """Return what is said of the architecture, as checkpoints are read with it."""
    given = arguments.model or ""
    if is_function(given):
        return requests.canonical({"architecture": "own", "function": given})
    return str(given)


def add_pair(child: ArgumentParser) -> None:
    """Declare two models, their data and their permutation spec."""
    child.add_argument(
        "models", nargs="+", help="two checkpoints (files or folders), or a bundled pair's name"
    )
    add_data(child)
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


def add_data(child: ArgumentParser) -> None:
    """Declare the examples."""
    child.add_argument(
        "--data",
        help="a bundled data set's name, a file of examples, or package.module:function that "
        "returns inputs and targets",
    )


def read_pair(arguments: Namespace) -> Named:
    """Read two models, their data and their permutation spec."""
    return Named(
        models=tuple(arguments.models),
        architecture=read_architecture(arguments),
        data=arguments.data or "",
        spec=Path(arguments.spec).read_text("utf-8") if arguments.spec else "",
        freeze=tuple(arguments.freeze),
    )


def _add_matching(child: ArgumentParser) -> None:
    child.add_argument(
        "--method",
        default="weight",
        choices=[*METHOD_CARDS, NAIVE],
        help="how B is aligned to A first; naive leaves it as it is",
    )
    child.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the method; METHOD.NAME=VALUE where there are several",
    )
    child.add_argument("--seed", type=int, default=0, help="seed of whatever is drawn at random")


def _read_matching(arguments: Namespace) -> Matching:
    return Matching(arguments.method, tuple(arguments.option), arguments.seed)


def _add_split(child: ArgumentParser) -> None:
    child.add_argument(
        "--split", default="test", choices=["train", "test"], help="examples to evaluate on"
    )


def _add_statistics(child: ArgumentParser, *corrections: str) -> None:
    child.add_argument(
        "--statistics",
        default="interpolated",
        choices=["interpolated", "reset", *corrections],
        help="where running statistics between the models come from",
    )


def add_inspect(child: ArgumentParser) -> None:
    """Declare the arguments of `inspect`."""
    add_pair(child)
    child.add_argument("--spec-out", metavar="FILE", help="where to write the spec, as JSON")


def read_inspect(arguments: Namespace) -> wanted.Inspect:
    """Read the arguments of `inspect`."""
    return wanted.Inspect(read_pair(arguments), arguments.spec_out)


def read_doctor(arguments: Namespace) -> wanted.Doctor:
    """Read the arguments of `doctor`."""
    return wanted.Doctor(read_pair(arguments))


def add_match(child: ArgumentParser) -> None:
    """Declare the arguments of `match`."""
    add_pair(child)
    _add_matching(child)
    child.add_argument(
        "--out",
        metavar="FILE",
        help="where to write: .npz for the permutation, .safetensors or .pt for the aligned model",
    )


def read_match(arguments: Namespace) -> wanted.Match:
    """Read the arguments of `match`."""
    return wanted.Match(read_pair(arguments), _read_matching(arguments), arguments.out)


def add_interpolate(child: ArgumentParser) -> None:
    """Declare the arguments of `interpolate`."""
    add_pair(child)
    _add_matching(child)
    _add_statistics(child, "repair", "rescale")
    _add_split(child)
    child.add_argument("--lams", type=int, default=25, help="number of positions from A to B")
    child.add_argument(
        "--overshoot",
        type=float,
        default=0.0,
        help="how far to go beyond both models, as a share of the line",
    )


def read_interpolate(arguments: Namespace) -> wanted.Interpolate:
    """Read the arguments of `interpolate`."""
    return wanted.Interpolate(
        named=read_pair(arguments),
        matching=_read_matching(arguments),
        split=arguments.split,
        statistics=arguments.statistics,
        lams=arguments.lams,
        overshoot=arguments.overshoot,
    )


def add_surface(child: ArgumentParser) -> None:
    """Declare the arguments of `surface`."""
    add_pair(child)
    _add_matching(child)
    _add_statistics(child)
    _add_split(child)
    child.add_argument(
        "--level",
        type=int,
        default=1,
        choices=range(len(requests.LEVELS)),
        help=f"how fine the grid is: {_listed(requests.LEVELS)} points per side",
    )
    child.add_argument(
        "--margin",
        type=float,
        default=0.25,
        help="room around the models, as a share of the larger side",
    )
    child.add_argument(
        "--points",
        metavar="MODELS",
        help="what spans the plane, with commas between: a, b, or the name of a method for B as it "
        "aligns it; three of them, or one for random directions around it",
    )
    child.add_argument(
        "--shown", metavar="MODELS", help="further models to draw, by the same names"
    )


def read_surface(arguments: Namespace) -> wanted.Surface:
    """Read the arguments of `surface`."""
    aligned = "" if arguments.method == NAIVE else f",b,{arguments.method}"
    return wanted.Surface(
        named=read_pair(arguments),
        matching=_read_matching(arguments),
        points=_names(arguments.points or f"a{aligned}"),
        shown=_names(arguments.shown) if arguments.shown else (),
        level=arguments.level,
        split=arguments.split,
        statistics=arguments.statistics,
        margin=arguments.margin,
    )


def add_connect(child: ArgumentParser) -> None:
    """Declare the arguments of `connect`."""
    add_pair(child)
    _add_matching(child)
    child.add_argument(
        "--kind", default="bezier", choices=list(PATH_CARDS), help="the kind of path"
    )
    child.add_argument(
        "--path-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the path; may be given several times",
    )
    _add_split(child)


def read_connect(arguments: Namespace) -> wanted.Connect:
    """Read the arguments of `connect`."""
    return wanted.Connect(
        named=read_pair(arguments),
        matching=_read_matching(arguments),
        kind=arguments.kind,
        options=dict(read_option(text) for text in arguments.path_option),
        split=arguments.split,
    )


def add_merge(child: ArgumentParser) -> None:
    """Declare the arguments of `merge`."""
    add_pair(child)
    _add_matching(child)
    _add_statistics(child, "repair", "rescale")
    child.add_argument(
        "--lam", type=float, default=0.5, help="where between the models: 0 is A, 1 is B"
    )
    child.add_argument(
        "--out",
        metavar="FILE",
        help="where to write: .safetensors or .pt; without it, a name that says what is merged",
    )


def read_merge(arguments: Namespace) -> wanted.Merge:
    """Read the arguments of `merge`."""
    return wanted.Merge(
        named=read_pair(arguments),
        matching=_read_matching(arguments),
        lam=arguments.lam,
        statistics=arguments.statistics,
        out=arguments.out,
    )


def add_replay(child: ArgumentParser) -> None:
    """Declare the arguments of `replay`."""
    child.add_argument("recipe", help="a file that --recipe-out wrote")


def read_replay(arguments: Namespace) -> wanted.Replay:
    """Read the arguments of `replay`."""
    return wanted.Replay(arguments.recipe, read_architecture(arguments))


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _listed(numbers: tuple[int, ...]) -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} or {last}"
