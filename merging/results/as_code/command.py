"""A request as a command of `python -m merging`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from merging.results.as_code.families import fusion_of
from merging.results.as_code.families import words as fusion_words
from merging.results.as_code.lines import find_writer, flag
from merging.results.as_code.models import changed_options, models_of, subject_of
from merging.results.requests import (
    AlignmentRequest,
    CurveRequest,
    DiagnosisRequest,
    ExportRequest,
    Request,
    SurfaceRequest,
)
from merging.schema.cards.titles import NAIVE

_PROGRAM = ("python", "-m", "merging")


def command(request: Request[Any]) -> str:
    """Write a request as a command of `python -m merging`.

    Args:
        request: An alignment, a curve, a surface, an examination, a fusion or a file.

    Returns:
        The command, for a shell.

    Raises:
        UnknownNameError: If there is no command for this kind of request.

    Example:
        >>> from merging.results.requests import CurveRequest, bundled_subject
        >>> command(CurveRequest(bundled_subject("mnist-mlp-32")))
        'python -m merging interpolate mnist-mlp-32 --method naive'
    """
    wanted = fusion_of(request)
    named = _about_two(request) if wanted is None else fusion_words(request, wanted)
    return shlex.join([*_PROGRAM, *named])


def _about_two(request: Request[Any]) -> list[str]:
    name, *options = find_writer(_COMMANDS, request.task, "command")(request)
    models = models_of(subject_of(request))
    words = [models.pair] if models.pair else list(models.files)
    if not models.pair and models.data:
        words += ["--data", models.data]
    if models.architecture:
        words += ["--model", models.architecture]
    if models.spec:
        words += ["--spec", models.spec]
    return [name, *words, *options]


def _method_words(request: AlignmentRequest | None) -> list[str]:
    if request is None:
        return ["--method", NAIVE]
    return [
        *flag("method", request.method, "weight"),
        *_option_words(request),
        *flag("seed", request.seed, 0),
    ]


def _option_words(request: AlignmentRequest, method: str = "") -> list[str]:
    options = changed_options(request)
    return [
        word for name, value in options.items() for word in ("--option", f"{method}{name}={value}")
    ]


def _match_command(request: AlignmentRequest) -> list[str]:
    return ["match", *_method_words(request)]


def _interpolate_command(request: CurveRequest) -> list[str]:
    return [
        "interpolate",
        *_method_words(request.alignment),
        *flag("split", request.split, CurveRequest.split),
        *flag("statistics", request.statistics, CurveRequest.statistics),
        *flag("lams", request.lams, CurveRequest.lams),
        *flag("overshoot", request.overshoot, CurveRequest.overshoot),
    ]


def _surface_command(request: SurfaceRequest) -> list[str]:
    every = (*request.points, *request.shown)
    aligned = {p.method: p for p in every if isinstance(p, AlignmentRequest)}
    options = [word for name, p in aligned.items() for word in _option_words(p, f"{name}.")]
    seed = request.seed or next((p.seed for p in aligned.values()), 0)
    return [
        "surface",
        "--points",
        _named(request.points),
        *flag("shown", _named(request.shown), ""),
        *options,
        *flag("seed", seed, 0),
        *flag("level", request.level, 1),
        *flag("split", request.split, SurfaceRequest.split),
        *flag("statistics", request.statistics, SurfaceRequest.statistics),
        *flag("margin", request.margin, SurfaceRequest.margin),
    ]


def _named(points: tuple[Any, ...]) -> str:
    return ",".join(p if isinstance(p, str) else p.method for p in points)


def _export_command(request: ExportRequest) -> list[str]:
    if request.what == "merged":
        return [
            "merge",
            *_method_words(request.alignment),
            *flag("lam", request.lam, ExportRequest.lam),
            *flag("statistics", request.statistics, ExportRequest.statistics),
            "--out",
            f"merged.{request.container}",
        ]
    ending = "npz" if request.what == "permutation" else request.container
    return ["match", *_method_words(request.alignment), "--out", f"{request.what}.{ending}"]


def _doctor_command(_: DiagnosisRequest) -> list[str]:
    return ["doctor"]


_COMMANDS: Mapping[str, Callable[[Any], list[str]]] = MappingProxyType({
    AlignmentRequest.task: _match_command,
    CurveRequest.task: _interpolate_command,
    SurfaceRequest.task: _surface_command,
    ExportRequest.task: _export_command,
    DiagnosisRequest.task: _doctor_command,
})
