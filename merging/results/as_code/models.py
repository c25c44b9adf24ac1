"""How the models, data and spec of a request are named outside the app."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from merging.files.user_function import PACKAGES
from merging.results.requests import AlignmentRequest, Request, Subject
from merging.schema.cards.matching import find_card
from merging.schema.cards.zoo import read_cards
from merging.schema.errors import UnknownNameError

_DATA, _SPEC = "examples.npz", "spec.json"


@dataclass(frozen=True)
class Models:
    """How the two models of a subject are named outside the app.

    Attributes:
        pair: The bundled pair's name; empty for uploaded models.
        files: Stand-in names of the two files of uploaded models.
        architecture: What `--model` takes; empty where the files say it.
        data: A bundled data set's name, a stand-in file's, or nothing.
        bundled_data: Whether the data are bundled.
        spec: A stand-in name of the file of a spec that was chosen; empty for the derived one.
    """

    pair: str = ""
    files: tuple[str, str] = ("", "")
    architecture: str = ""
    data: str = ""
    bundled_data: bool = False
    spec: str = ""


def note(subject: Subject) -> str:
    """Say what has to be put in place of the stand-ins; empty where everything is bundled."""
    models = models_of(subject)
    names = [] if models.pair else [f"`{models.files[0]}` and `{models.files[1]}` for your models"]
    if not models.pair and models.data and not models.bundled_data:
        names.append(f"`{models.data}` for your examples")
    if models.spec:
        names.append(f"`{models.spec}` for the permutation spec, which the Models page downloads")
    return put_here(names)


def put_here(names: Sequence[str]) -> str:
    """Say which files a person has to put in place of stand-ins; empty for none."""
    return f"Put your own files here: {', '.join(names)}." if names else ""


def models_of(subject: Subject) -> Models:
    """Name a subject's models and data as they are named outside the app."""
    spec = _SPEC if subject.spec else ""
    for name, card in read_cards().items():
        marks = (card["fingerprint_a"], card["fingerprint_b"], card["data_fingerprint"])
        if marks == (subject.model_a, subject.model_b, subject.data_fingerprint):
            return Models(pair=name, data=subject.data, bundled_data=True, spec=spec)
    config = json.loads(subject.config)
    ending = ending_of(config)
    data, bundled = examples_of(subject.data)
    return Models(
        files=(f"A{ending}", f"B{ending}"),
        architecture=architecture_of(config),
        data=data,
        bundled_data=bundled,
        spec=spec,
    )


def ending_of(config: Mapping[str, Any], usual: str = ".safetensors") -> str:
    """Return how the file of a model ends; folders have no ending."""
    return {"exported": ".pt2", "transformers": ""}.get(config["architecture"], usual)


def examples_of(data: str) -> tuple[str, bool]:
    """Name examples by their bundled name or a stand-in, and say whether they are bundled."""
    bundled = data in {card["data"] for card in read_cards().values()}
    return data if bundled or not data else _DATA, bundled


def architecture_of(config: Mapping[str, Any]) -> str:
    """Return what `--model` takes for an architecture; empty where files say theirs."""
    if config["architecture"] == "own":
        return str(config["function"])
    if config["architecture"] in PACKAGES:
        return f"{config['architecture']}:{config['name']}"
    return ""


def subject_of(request: Request[Any]) -> Subject:
    """Return the two models of a request.

    Raises:
        UnknownNameError: If the request is not about two models.
    """
    subject = getattr(request, "subject", None)
    if not isinstance(subject, Subject):
        raise UnknownNameError(f"there is no code for the task {request.task!r}")
    return subject


def changed_options(request: AlignmentRequest) -> dict[str, Any]:
    """Return the options of a matching method that are not at their defaults."""
    return changed(request.options, find_card(request.method).options())


def changed(options: str, defaults: Any) -> dict[str, Any]:
    """Return the options that are not at their defaults.

    Args:
        options: Canonical JSON of all options.
        defaults: The record of options as a method or rule makes it.

    Returns:
        Values by name.
    """
    usual, chosen = asdict(defaults), json.loads(options)
    return {name: value for name, value in chosen.items() if value != usual[name]}
