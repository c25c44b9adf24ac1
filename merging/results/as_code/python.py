"""A request as a Python script that uses `merging`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from merging.results.as_code.families import fusion_of, members_of
from merging.results.as_code.fusion import fused, loading
from merging.results.as_code.lines import (
    Written,
    call,
    find_writer,
    options,
    read_data,
    read_model,
    seed,
    text,
)
from merging.results.as_code.models import Models, changed_options, models_of, subject_of
from merging.results.requests import (
    CORRECTION_EXAMPLES,
    LEVELS,
    SHOWN_EXAMPLES,
    AlignmentRequest,
    CurveRequest,
    DiagnosisRequest,
    ExportRequest,
    Request,
    SurfaceRequest,
)
from merging.schema.cards.matching import find_card


def python(request: Request[Any]) -> str:
    """Write a request as Python that uses `merging`.

    Args:
        request: An alignment, a curve, a surface, an examination, a fusion or a file.

    Returns:
        A script; the last name that it assigns is the result.

    Raises:
        UnknownNameError: If there is no code for this kind of request.

    Example:
        >>> from merging.results.requests import alignment, bundled_subject
        >>> print(python(alignment(bundled_subject("mnist-mlp-32"), "weight")))
        import merging
        <BLANKLINE>
        pair = merging.load_pair("mnist-mlp-32")
        model, params_a, params_b, data = pair.model, pair.params_a, pair.params_b, pair.data
        spec = merging.find_symmetry(model, (data.test.inputs[:2],))
        <BLANKLINE>
        found = merging.match("weight", model, params_a, params_b, spec=spec)
    """
    wanted = fusion_of(request)
    if wanted is not None:
        head, body = loading(members_of(wanted.family, wanted.moments)), fused(request)
    else:
        head, body = (
            _loading(models_of(subject_of(request))),
            find_writer(_PYTHON, request.task, "code")(request),
        )
    imports = sorted({*head.imports, *body.imports})
    own = [line for line in imports if "merging" in line]
    others = [line for line in imports if line not in own]
    top = "\n".join([*others, *([""] if others else []), "import merging", *own])
    return "\n".join([top, "", *head.lines, "", *body.lines])


def has_code(request: Request[Any]) -> bool:
    """Return whether there is code for this request: trained paths have none, nor their planes."""
    if isinstance(request, SurfaceRequest):
        every = (*request.points, *request.shown)
        return all(isinstance(point, (str, AlignmentRequest)) for point in every)
    return fusion_of(request) is not None or request.task in _PYTHON


def _loading(models: Models) -> Written:
    inputs, data = "a.example_inputs", Written(())
    if models.pair:
        inputs = "(data.test.inputs[:2],)"
        lines = [
            f"pair = merging.load_pair({text(models.pair)})",
            "model, params_a, params_b, data = pair.model, pair.params_a, pair.params_b, pair.data",
        ]
    else:
        lines = [
            read_model("a", models.files[0], models.architecture),
            f"b = merging.read_model({text(models.files[1])}, like=a)",
            "model, params_a, params_b = a.model, a.params, b.params",
        ]
        data = read_data("data = {}", models.data, "a", is_bundled=models.bundled_data)
    if models.spec:
        read = f"Path({text(models.spec)}).read_text()"
        spec = f"spec = merging.PermutationSpec.from_json({read}, params_a)"
        return Written((*lines, *data.lines, spec), (*data.imports, "from pathlib import Path"))
    spec = f"spec = merging.find_symmetry(model, {inputs})"
    return Written((*lines, *data.lines, spec), data.imports)


def _match_lines(request: AlignmentRequest, found: str = "found") -> tuple[str, ...]:
    words = [text(request.method), "model, params_a, params_b, spec=spec"]
    words += ["batches=data.train"] if find_card(request.method).needs_data else []
    words += [*seed(request.seed), *options(changed_options(request))]
    return (call(found, "match", words),)


def _aligned_lines(request: AlignmentRequest | None, aligned: str = "aligned") -> tuple[str, ...]:
    if request is None:
        return ()
    found = aligned.replace("aligned", "found")
    move = f"{aligned} = merging.permute(spec, {found}.permutations, params_b)"
    return (*_match_lines(request, found), move)


def _alignment(request: AlignmentRequest) -> Written:
    return Written(_match_lines(request))


def _curve(request: CurveRequest) -> Written:
    lines = list(_aligned_lines(request.alignment))
    b = "params_b" if request.alignment is None else "aligned"
    prepare, imports = _prepare(request.statistics, "line_policy", f"params_a, {b}, ")
    words = [f"model, params_a, {b}, {_split(request.split)}, lams={request.lams}"]
    words += [f"overshoot={request.overshoot!r}"] if request.overshoot else []
    lines += [*prepare, call("curve", "interpolate", words + _prepared(prepare))]
    return Written(tuple(lines), imports)


def _surface(request: SurfaceRequest) -> Written:
    aligned = [p for p in request.points if isinstance(p, AlignmentRequest)]
    names = {p.key: f"aligned_{p.method}" if len(aligned) > 1 else "aligned" for p in aligned}
    lines = [line for p in aligned for line in _aligned_lines(p, names[p.key])]
    points = [f"params_{p}" if isinstance(p, str) else names[p.key] for p in request.points]
    imports: tuple[str, ...] = ()
    if len(points) == 1:
        imports = ("import torch",)
        lines.append(f"directions = torch.Generator().manual_seed({request.seed})")
        lines.append(f"plane = merging.filter_normalized_plane({points[0]}, directions)")
    else:
        lines.append(f"plane = merging.plane_through({', '.join(points)})")
    prepare, more = _prepare(request.statistics, "plane_policy", "")
    words = [f"model, plane, {_split(request.split)}, resolution={LEVELS[request.level]}"]
    words += [f"margin={request.margin!r}"] if request.margin != SurfaceRequest.margin else []
    lines += [
        *prepare,
        f"surface = merging.evaluate_plane({', '.join(words + _prepared(prepare))})",
    ]
    return Written(tuple(lines), (*imports, *more))


def _export(request: ExportRequest) -> Written:
    lines = list(_aligned_lines(request.alignment))
    b = "params_b" if request.alignment is None else "aligned"
    if request.what == "permutation":
        lines = lines[:1]
        arrays = "**{group: perm.numpy() for group, perm in found.permutations.items()}"
        lines.append(f'np.savez("permutation.npz", {arrays})')
        return Written(tuple(lines), ("import numpy as np",))
    imports: tuple[str, ...] = ()
    if request.what == "merged":
        line, imports = _merged(request, b)
        lines.append(line)
    params, letter = ("merged", "a") if request.what == "merged" else (b, "b")
    if not models_of(request.subject).pair:
        prefix = "" if request.prefix else ', prefix=""'
        params = f"{letter}.as_brought({params}{prefix})"
    if request.container == "pt":
        lines.append(f'torch.save({params}, "{request.what}.pt")')
        return Written(tuple(lines), (*imports, "import torch"))
    lines.append(f'merging.write_checkpoint("{request.what}.safetensors", {params})')
    return Written(tuple(lines), imports)


def _merged(request: ExportRequest, b: str) -> tuple[str, tuple[str, ...]]:
    if request.statistics == "interpolated":
        line = f"merged = lerp(params_a, {b}, {request.lam!r})"
        return line, ("from merging.models.state_dict import lerp",)
    examples = f"data.train.take({_examples(request.statistics)})"
    words = [f"model, params_a, {b}, {request.lam!r}", examples]
    words.append(f"kind={text(request.statistics)}")
    return call("merged", "repair", words), ()


def _diagnosis(request: DiagnosisRequest) -> Written:
    lines = (
        "inputs = (data.test.inputs[:2],)" if models_of(request.subject).pair else
        "inputs = a.example_inputs",
        'network = Network(model, inputs, "the two models")',
        "found = examine(network, spec, params_a, params_b)",
    )  # fmt: skip
    imports = (
        "from merging.matching.checks.diagnosis import examine",
        "from merging.models.network import Network",
    )
    return Written(lines, imports)


def _prepare(statistics: str, policy: str, ends: str) -> tuple[list[str], tuple[str, ...]]:
    if statistics == "interpolated":
        return [], ()
    examples = f"data.train.take({_examples(statistics)})"
    line = f"prepare = {policy}({text(statistics)}, model, {ends}{examples})"
    return [line], (f"from merging.landscape import {policy}",)


def _prepared(prepare: list[str]) -> list[str]:
    return ["prepare=prepare"] if prepare else []


def _examples(statistics: str) -> int:
    return CORRECTION_EXAMPLES if statistics in ("repair", "rescale") else SHOWN_EXAMPLES


def _split(name: str) -> str:
    return f"data.train.take({SHOWN_EXAMPLES})" if name == "train" else "data.test"


_PYTHON: Mapping[str, Callable[[Any], Written]] = MappingProxyType({
    AlignmentRequest.task: _alignment,
    CurveRequest.task: _curve,
    SurfaceRequest.task: _surface,
    ExportRequest.task: _export,
    DiagnosisRequest.task: _diagnosis,
})
