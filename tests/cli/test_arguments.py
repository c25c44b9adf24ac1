"""The door of the command line: arguments become frozen records, and records become requests."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, is_dataclass

import pytest

from merging.cli.main import COMMANDS, parser
from merging.cli.wanted import Named, read_option
from merging.results import requests
from merging.results.requests import (
    CurveRequest,
    ExportRequest,
    OrderRequest,
    PathCurveRequest,
    SurfaceRequest,
)
from merging.schema.errors import MergingError

PAIR = "mnist-mlp-32"
SUBJECT = requests.bundled_subject(PAIR)
WEIGHT = requests.alignment(SUBJECT, "weight")
SEEDED = requests.alignment(SUBJECT, "activation", {"examples": 200}, seed=4)
FAMILY = requests.bundled_family("mnist-classes")
PART = FAMILY.without_base().of((2, 0))


def read(*words: str):
    """What a command is handed for a command line."""
    given = parser().parse_args(words)
    return COMMANDS[given.command].read(given)


TABLE = {
    "match": (
        ["match", PAIR],
        lambda asked: asked.matching.alignment(SUBJECT),
        WEIGHT,
    ),
    "match with options": (
        ["match", PAIR, "--method", "activation", "--option", "examples=200", "--seed", "4"],
        lambda asked: asked.matching.alignment(SUBJECT),
        SEEDED,
    ),
    "match into arrays": (
        ["match", PAIR, "--out", "p.npz"],
        lambda asked: asked.file(SUBJECT, WEIGHT, "module."),
        ExportRequest(subject=SUBJECT, alignment=WEIGHT, what="permutation"),
    ),
    "match into a model": (
        ["match", PAIR, "--out", "b.pt"],
        lambda asked: asked.file(SUBJECT, WEIGHT, "module."),
        ExportRequest(
            subject=SUBJECT, alignment=WEIGHT, what="aligned", prefix="module.", container="pt"
        ),
    ),
    "interpolate": (
        ["interpolate", PAIR],
        lambda asked: asked.request(SUBJECT),
        CurveRequest(SUBJECT, WEIGHT),
    ),
    "interpolate with everything": (
        [
            "interpolate", PAIR, "--method", "naive", "--split", "train", "--statistics", "repair",
            "--lams", "5", "--overshoot", "0.25",
        ],
        lambda asked: asked.request(SUBJECT),
        CurveRequest(
            subject=SUBJECT, split="train", statistics="repair", lams=5, overshoot=0.25
        ),
    ),
    "surface": (
        ["surface", PAIR],
        lambda asked: asked.request(SUBJECT),
        SurfaceRequest(SUBJECT, ("a", "b", WEIGHT), level=1),
    ),
    "surface around a model": (
        ["surface", PAIR, "--method", "naive", "--seed", "3", "--level", "0", "--margin", "0.5"],
        lambda asked: asked.request(SUBJECT),
        SurfaceRequest(SUBJECT, ("a",), level=0, margin=0.5, seed=3),
    ),
    "surface through several methods": (
        [
            "surface", PAIR, "--points", "a, weight,activation", "--shown", "b", "--seed", "4",
            "--option", "activation.examples=200",
        ],
        lambda asked: asked.request(SUBJECT),
        SurfaceRequest(
            subject=SUBJECT,
            points=("a", requests.alignment(SUBJECT, "weight", seed=4), SEEDED),
            shown=("b",),
            level=1,
        ),
    ),
    "connect": (
        ["connect", PAIR, "--method", "naive", "--kind", "chain", "--path-option", "steps=60"],
        lambda asked: asked.path(SUBJECT, keeps_statistics=True),
        PathCurveRequest(
            subject=SUBJECT,
            path=requests.path(SUBJECT, None, "chain", {"steps": 60}),
            statistics="reset",
        ),
    ),
    "the line beside the path": (
        ["connect", PAIR, "--split", "train"],
        lambda asked: asked.line(SUBJECT),
        CurveRequest(SUBJECT, WEIGHT, "train"),
    ),
    "merge": (
        ["merge", PAIR, "--lam", "0.25", "--statistics", "rescale", "--out", "m.pth"],
        lambda asked: asked.request(SUBJECT, "net."),
        ExportRequest(
            subject=SUBJECT, alignment=WEIGHT, what="merged", lam=0.25, statistics="rescale",
            prefix="net.", container="pt",
        ),
    ),
    "fuse": (
        ["fuse", "mnist-classes"],
        lambda asked: asked.request(asked.family(FAMILY), None),
        requests.fusion(FAMILY, "average"),
    ),
    "fuse with everything": (
        [
            "fuse", "mnist-classes", "--members", "2,0,2", "--no-base", "--rule", "fisher",
            "--weights", "0.5", "--option", "floor=0.01", "--order", "first", "--statistics",
            "reset", "--labels", "true", "--seed", "3", "--split", "validation",
        ],
        lambda asked: asked.request(asked.family(FAMILY), None),
        requests.fusion(
            PART, "fisher", {"floor": 0.01}, weights=(0.5, 0.5),
            order=OrderRequest(PART, "first", 3), statistics="reset", labels="true", seed=3,
            split="validation",
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_a_command_line_becomes_the_request(name):
    words, request, expected = TABLE[name]
    assert request(read(*words)) == expected


ARGUMENTS = {
    "inspect": [PAIR],
    "doctor": [PAIR],
    "match": [PAIR],
    "interpolate": [PAIR],
    "surface": [PAIR],
    "connect": [PAIR],
    "merge": [PAIR],
    "fuse": ["mnist-classes"],
    "replay": ["recipe.json"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_command_is_handed_is_frozen(name):
    asked = read(name, *ARGUMENTS[name])
    assert is_dataclass(asked)
    first = fields(asked)[0].name
    with pytest.raises(FrozenInstanceError, match=f"cannot assign to field '{first}'"):
        setattr(asked, first, None)


def test_models_and_data_are_named_as_they_were_written(tmp_path):
    spec = tmp_path / "spec.json"
    spec.write_text("{}")
    asked = read(
        "inspect", "a.pt", "b.pt", "--data", "digits", "--model", "timm:vit", "--freeze", "one",
        "--freeze", "two", "--spec", str(spec),
    )  # fmt: skip
    assert asked.named == Named(
        models=("a.pt", "b.pt"), architecture="timm:vit", data="digits", spec="{}",
        freeze=("one", "two"),
    )  # fmt: skip


def test_a_function_is_an_architecture_of_its_own():
    asked = read("replay", "recipe.json", "--model", "mine:small")
    assert asked.architecture == '{"architecture":"own","function":"mine:small"}'


@pytest.mark.parametrize(
    ("more", "streams"),
    [
        ([], True),
        (["--rule", "regmean"], False),
        (["--rule", "fisher", "--fisher-from", "optimizer"], True),
        (["--rule", "fisher"], False),
        (["--rule", "zipit"], False),
        (["--data", "mnist"], False),
        (["--order", "first"], False),
        (["--members", "0"], False),
        (["--recipe-out", "r.json"], False),
        (["--out", "merged.zip"], False),
    ],
)
def test_files_are_fused_tensor_by_tensor_where_nothing_else_has_to_be_known(more, streams):
    assert read("fuse", "a.pt", "b.pt", "--out", "merged.safetensors", *more).streams is streams


def test_one_weight_is_for_all_models():
    asked = read("fuse", "a.pt", "b.pt", "--weights", "0.3")
    assert asked.weights_of(2) == (0.3, 0.3)


def test_an_option_for_no_method_is_refused():
    asked = read("surface", PAIR, "--option", "zip.restarts=1")
    with pytest.raises(MergingError, match="'zip' is not a matching method; choose from weight"):
        asked.request(SUBJECT)


def test_an_option_without_a_value_is_refused():
    with pytest.raises(MergingError, match="--option takes name=value, not 'restarts'"):
        read_option("restarts")
