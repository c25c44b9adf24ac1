"""How the models, data and spec of a request are named outside the app."""

from __future__ import annotations

import json
from collections.abc import Mapping
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
        pair: The bundled pair's name; empty for models that were brought.
        files: Stand-in names of the two files, of models that were brought.
        architecture: What `--model` takes; empty where the files say it.
        data: A bundled data set's name, a stand-in file's, or nothing.
        bundled_data: Whether the data are bundled.
        spec: A stand-in name of the file of a spec that was chosen; empty for the derived one.
    """

    pair: str
    files: tuple[str, str]
    architecture: str
    data: str
    bundled_data: bool
    spec: str


def note(subject: Subject) -> str:
    """What has to be put in place of the stand-ins; empty where everything is bundled."""
    models = models_of(subject)
    names = [] if models.pair else [f"`{models.files[0]}` and `{models.files[1]}` for your models"]
    if not models.pair and models.data and not models.bundled_data:
        names.append(f"`{models.data}` for your examples")
    if models.spec:
        names.append(f"`{models.spec}` for the permutation spec, which the Models page downloads")
    return f"Put your own files here: {', '.join(names)}." if names else ""


def models_of(subject: Subject) -> Models:
    """How a subject's models and data are named outside the app."""
    spec = _SPEC if subject.spec else ""
    for name, card in read_cards().items():
        marks = (card["fingerprint_a"], card["fingerprint_b"], card["data_fingerprint"])
        if marks == (subject.model_a, subject.model_b, subject.data_fingerprint):
            return Models(name, ("", ""), "", subject.data, True, spec)
    config = json.loads(subject.config)
    ending = {"exported": ".pt2", "transformers": ""}.get(config["architecture"], ".safetensors")
    data, bundled = examples_of(subject.data)
    files = (f"A{ending}", f"B{ending}")
    return Models("", files, architecture_of(config), data, bundled, spec)


def examples_of(data: str) -> tuple[str, bool]:
    """How examples are named outside the app: their bundled name or a stand-in, and which."""
    bundled = data in {card["data"] for card in read_cards().values()}
    return data if bundled or not data else _DATA, bundled


def architecture_of(config: Mapping[str, Any]) -> str:
    """What `--model` takes for an architecture; empty where files say theirs."""
    if config["architecture"] == "own":
        return str(config["function"])
    if config["architecture"] in PACKAGES:
        return f"{config['architecture']}:{config['name']}"
    return ""


def subject_of(request: Request[Any]) -> Subject:
    """The two models of a request.

    Raises:
        UnknownNameError: If the request is not about two models.
    """
    subject = getattr(request, "subject", None)
    if not isinstance(subject, Subject):
        raise UnknownNameError(f"there is no code for the task {request.task!r}")
    return subject


def changed_options(request: AlignmentRequest) -> dict[str, Any]:
    """The options that are not at their defaults."""
    defaults = asdict(find_card(request.method).options())
    chosen: dict[str, Any] = json.loads(request.options)
    return {name: value for name, value in chosen.items() if value != defaults[name]}
