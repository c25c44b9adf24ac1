"""Arguments that several commands share, and how their texts are read."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from merging.results import requests
from merging.schema.cards.fusion.curvature import MOMENT_SCALE
from merging.schema.cards.fusion.networks import WAY_CARDS
from merging.schema.cards.fusion.table import RULE_CARDS
from merging.schema.cards.matching import METHOD_CARDS
from merging.schema.cards.paths import PATH_CARDS
from merging.schema.errors import MergingError


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


def read_option(text: str) -> tuple[str, Any]:
    """Name and value of an option that is written as `name=value`; values are JSON or words.

    Raises:
        MergingError: If there is no equals sign.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise MergingError(f"--option takes name=value, not {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def add_arguments(child: ArgumentParser) -> None:
    """What `fuse` can be told."""
    child.add_argument(
        "models",
        nargs="+",
        help="checkpoints (files or folders), or the name of a bundled family or pair",
    )
    child.add_argument(
        "--members",
        metavar="NUMBERS",
        help="only these models, from 0, with commas between; of models of different widths "
        "(--rule transport) the result has those of the first",
    )
    child.add_argument("--rule", default="average", choices=[*RULE_CARDS, *WAY_CARDS])
    child.add_argument("--base", metavar="FILE", help="what the models were fine-tuned from")
    child.add_argument("--no-base", action="store_true", help="leave a bundled family's base out")
    child.add_argument(
        "--weights", metavar="NUMBERS", help="one number per model with commas between, or one"
    )
    child.add_argument("--option", action="append", default=[], metavar="NAME=VALUE")
    child.add_argument("--data", help="a bundled data set's name, or a file of examples")
    child.add_argument(
        "--order",
        default="none",
        choices=["none", *requests.ORDER_TITLES],
        help="line the units of the models up first",
    )
    child.add_argument(
        "--tune", action="store_true", help="take the coefficient that is best on validation data"
    )
    child.add_argument("--statistics", default="merged", choices=["merged", "reset"])
    child.add_argument(
        "--labels",
        default="sampled",
        choices=["sampled", "true"],
        help="labels for curvature: drawn from the models, or those of the data",
    )
    child.add_argument(
        "--fisher-from",
        default="examples",
        choices=["examples", "optimizer"],
        help="curvature from --data, or from Adam's second moments in the checkpoints",
    )
    child.add_argument(
        "--moment-scale",
        type=float,
        default=MOMENT_SCALE,
        metavar="NUMBER",
        help="training examples times examples in a batch, for --fisher-from optimizer",
    )
    child.add_argument("--seed", type=int, default=0)
    child.add_argument(
        "--split", default="test", choices=["validation", "test"], help="examples to judge by"
    )
    child.add_argument(
        "--out",
        metavar="FILE",
        help="where to write: .safetensors; .zip with card and recipe; or, from files without "
        "--data, a folder",
    )
