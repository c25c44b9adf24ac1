"""How the models and data of a fusion are named outside the app, and its words in a shell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from merging.results.as_code.lines import flag
from merging.results.as_code.models import (
    architecture_of,
    changed,
    ending_of,
    examples_of,
    put_here,
)
from merging.results.requests import (
    Family,
    FusionExportRequest,
    FusionRequest,
    Moments,
    Request,
    bundled_family,
    bundled_subject,
    pair_family,
)
from merging.schema.cards.fusion.table import find_card
from merging.schema.cards.zoo import list_families, list_pairs
from merging.schema.errors import UnknownNameError


@dataclass(frozen=True)
class Members:
    """How the models of a family are named outside the app.

    Attributes:
        family: The family as a request has it.
        name: Name of the bundled family or pair; empty for uploaded models.
        is_pair: Whether that is a pair.
        chosen: Numbers of the bundled family's models; empty for all of them.
        files: Stand-in names of the files of uploaded models.
        base: The stand-in name of the base's; empty where there is none.
        architecture: What `--model` takes; empty where the files say it.
        data: A bundled data set's name, a stand-in file's, or nothing.
        bundled_data: Whether the data are bundled.
    """

    family: Family
    name: str = ""
    is_pair: bool = False
    chosen: tuple[int, ...] = ()
    files: tuple[str, ...] = ()
    base: str = ""
    architecture: str = ""
    data: str = ""
    bundled_data: bool = False

    @property
    def is_uploaded(self) -> bool:
        """Whether the models are a person's own."""
        return not self.name


def fusion_of(request: Request[Any]) -> FusionRequest | None:
    """Return the fusion that a request is about; None if it is about none."""
    if isinstance(request, FusionExportRequest):
        return request.fusion
    return request if isinstance(request, FusionRequest) else None


def members_of(family: Family, moments: Moments | None = None) -> Members:
    """Name a family's models and data as they are named outside the app.

    Args:
        family: A bundled one, whole or in part, with or without its base; or uploaded models.
        moments: What was taken from the files beside the models, if it was.

    Returns:
        The names.

    Raises:
        UnknownNameError: If they were uploaded with several data sets, which nothing reads.
    """
    for name in list_families():
        whole = bundled_family(name)
        if not set(family.models) <= set(whole.models):
            continue
        chosen = tuple(whole.models.index(mark) for mark in family.models)
        part = whole.of(chosen)
        if family in (part, part.without_base()):
            return Members(family, name, chosen=() if part == whole else chosen)
    for name in list_pairs():
        if family == pair_family(bundled_subject(name)):
            return Members(family, name, is_pair=True)
    return _uploaded(family, moments)


def _uploaded(family: Family, moments: Moments | None) -> Members:
    if len(family.tasks) > 1:
        raise UnknownNameError("there is no code for models that were uploaded with several tasks")
    config = json.loads(family.config)
    usual = ".safetensors" if moments is None else ".pt"  # where optimizers can be beside weights
    ending = ending_of(config, usual)
    data, bundled = examples_of(family.tasks[0].data if family.tasks else "")
    return Members(
        family,
        files=tuple(f"{k + 1}{ending}" for k in range(len(family.models))),
        base=f"base{ending}" if family.base else "",
        architecture=architecture_of(config),
        data=data,
        bundled_data=bundled,
    )


def note(members: Members) -> str:
    """Say what has to be put in place of the stand-ins; empty where everything is bundled."""
    if members.name:
        return ""
    first, last = members.files[0], members.files[-1]
    said = [f"`{first}` to `{last}` for your models"]
    if members.base:
        said.append(f"`{members.base}` for their base")
    if members.data and not members.bundled_data:
        said.append(f"`{members.data}` for your examples")
    return put_here(said)


def changed_options(request: FusionRequest) -> Mapping[str, Any]:
    """Return the options of a rule that are not at their defaults."""
    return changed(request.options, find_card(request.rule).options())


def words(request: Request[Any], wanted: FusionRequest) -> list[str]:
    """Return the words of the command `fuse`.

    Args:
        request: The fusion, or a file of it.
        wanted: The fusion.

    Returns:
        The words after the program's name.
    """
    members, default = members_of(wanted.family, wanted.moments), FusionRequest
    found = ["fuse", *_models(members), "--rule", wanted.rule]
    if wanted.weights:
        # An equals sign, since a number below 0 would be taken for an option.
        found.append(f"--weights={','.join(repr(weight) for weight in wanted.weights)}")
    for name, value in changed_options(wanted).items():
        found += ["--option", f"{name}={value}"]
    if wanted.order is not None:
        found += ["--order", wanted.order.kind]
    for name in ("statistics", "labels", "seed", "split"):
        found += flag(name, getattr(wanted, name), getattr(default, name))
    if wanted.moments is not None:
        found += ["--fisher-from", "optimizer"]
        if wanted.moments.scale != Moments.scale:
            found += ["--moment-scale", f"{wanted.moments.scale!r}"]
    return [*found, *_out(request, wanted)]


def _models(members: Members) -> list[str]:
    if members.name:
        chosen = ["--members", ",".join(map(str, members.chosen))] if members.chosen else []
        has_base = not members.is_pair and bundled_family(members.name).base
        return [
            members.name, *chosen,
            *(["--no-base"] if has_base and not members.family.base else []),
        ]  # fmt: skip
    return [
        *members.files,
        *(["--base", members.base] if members.base else []),
        *(["--data", members.data] if members.data else []),
        *(["--model", members.architecture] if members.architecture else []),
    ]


def _out(request: Request[Any], wanted: FusionRequest) -> list[str]:
    if isinstance(request, FusionExportRequest):
        return ["--out", "merged.zip" if request.what == "folder" else "merged.safetensors"]
    # Without examples the file is all there is to have.
    return [] if wanted.family.tasks else ["--out", "merged.safetensors"]
