"""What a command line may say of `fuse`, and the frozen record that it becomes."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from merging.cli.arguments import add_data, read_architecture
from merging.cli.wanted import Named, read_option
from merging.cli.wanted_fusion import Fuse
from merging.results import requests
from merging.schema.cards.fusion.curvature import MOMENT_SCALE
from merging.schema.cards.fusion.table import RULE_CARDS
from merging.schema.errors import MergingError


def add_fuse(child: ArgumentParser) -> None:
    """Declare the arguments of `fuse`."""
    _add_models(child)
    _add_rule(child)
    _add_preparation(child)
    _add_curvature(child)
    child.add_argument("--seed", type=int, default=0, help="seed of whatever is drawn at random")
    child.add_argument(
        "--split", default="test", choices=["validation", "test"], help="examples to judge by"
    )
    child.add_argument(
        "--out",
        metavar="FILE",
        help="where to write: .safetensors; .pt for PyTorch; .zip for a folder with model card and "
        "recipe; or, from files without --data, a folder",
    )


def _add_models(child: ArgumentParser) -> None:
    child.add_argument(
        "models",
        nargs="+",
        help="checkpoints (files or folders), or the name of a bundled family or pair",
    )
    child.add_argument(
        "--members",
        metavar="NUMBERS",
        help="only these models, numbered from 0, with commas between; where widths differ "
        "(--rule transport), the result is as wide as the first of them",
    )


def _add_rule(child: ArgumentParser) -> None:
    child.add_argument(
        "--rule", default="average", choices=list(RULE_CARDS), help="how they are fused"
    )
    child.add_argument("--base", metavar="FILE", help="the model they were fine-tuned from")
    child.add_argument("--no-base", action="store_true", help="leave a bundled family's base out")
    child.add_argument(
        "--weights",
        metavar="NUMBERS",
        help="one number per model with commas between, or one number for all",
    )
    child.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the rule; may be given several times",
    )


def _add_preparation(child: ArgumentParser) -> None:
    add_data(child)
    child.add_argument(
        "--order",
        default="none",
        choices=["none", *requests.ORDER_TITLES],
        help="line the units of the models up first",
    )
    child.add_argument(
        "--tune", action="store_true", help="take the coefficient that is best on validation data"
    )
    child.add_argument(
        "--statistics",
        default="merged",
        choices=["merged", "reset"],
        help="merge running statistics too, or take them from training examples",
    )


def _add_curvature(child: ArgumentParser) -> None:
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
        help="what Adam's second moments are multiplied by (--fisher-from optimizer): training "
        "examples times examples in a batch",
    )


def read_fuse(arguments: Namespace) -> Fuse:
    """Read the arguments of `fuse`."""
    return Fuse(
        named=Named(
            models=tuple(arguments.models),
            architecture=read_architecture(arguments),
            data=arguments.data or "",
            base=arguments.base or "",
        ),
        rule=arguments.rule,
        options=dict(read_option(text) for text in arguments.option),
        weights=_weights(arguments.weights),
        members=arguments.members,
        no_base=arguments.no_base,
        order=arguments.order,
        tune=arguments.tune,
        statistics=arguments.statistics,
        labels=arguments.labels,
        fisher_from=arguments.fisher_from,
        moment_scale=arguments.moment_scale,
        seed=arguments.seed,
        split=arguments.split,
        out=arguments.out,
        noted=bool(arguments.recipe_out),
    )


def _weights(text: str | None) -> tuple[float, ...]:
    if text is None:
        return ()
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise MergingError(
            f"--weights takes numbers with commas between, such as 0.5,0.5, not {text!r}"
        ) from None
