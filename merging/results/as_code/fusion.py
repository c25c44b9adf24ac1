"""A fusion as lines of Python that use `merging`."""

from __future__ import annotations

from typing import Any

from merging.results.as_code.families import Members, changed_options, fusion_of, members_of
from merging.results.as_code.lines import (
    Written,
    call,
    options,
    read_data,
    read_model,
    seed,
    text,
)
from merging.results.as_code.networks import (
    CONCATENATE,
    by_networks,
    has_heads,
    judged_heads,
    shown,
    spec_lines,
    weights,
    written_heads,
)
from merging.results.requests import (
    CURVATURE_EXAMPLES,
    FusionExportRequest,
    FusionRequest,
    Request,
)
from merging.schema.cards.fusion.card import RuleCard
from merging.schema.cards.fusion.table import find_card
from merging.schema.errors import UnknownNameError


def loading(members: Members) -> Written:
    """Write lines that read models, base and tasks into `model`, `models`, `base`, `tasks`."""
    if members.is_pair:
        lines = [
            f"pair = merging.load_pair({text(members.name)})",
            "model, tasks = pair.model, [pair.data]",
            "models = [pair.params_a, pair.params_b]",
        ]
    elif members.name:
        some = f"[family.models[k] for k in {_numbers(members.chosen)}]"
        lines = [
            f"family = merging.load_family({text(members.name)})",
            "model, tasks = family.model, family.tasks",
            f"models = {some if members.chosen else 'list(family.models)'}",
            *(["base = family.base"] if members.family.base else []),
        ]
    else:
        return _from_files(members)
    return Written(tuple(lines))


def _from_files(members: Members) -> Written:
    like = "" if members.family.configs else ", like=first"
    lines = [
        read_model("first", members.files[0], members.architecture),
        f"files = [{', '.join(text(name) for name in members.files[1:])}]",
        f"others = [merging.read_model(file{like}) for file in files]",
        "model, models = first.model, [one.params for one in (first, *others)]",
    ]
    if members.base:
        lines.append(f"base = merging.read_model({text(members.base)}, like=first).params")
    data = read_data("tasks = [{}]", members.data, "first", is_bundled=members.bundled_data)
    return Written((*lines, *data.lines), data.imports)


def fused(request: Request[Any]) -> Written:
    """Write lines that make `merged`, and `accuracies` of it or a file.

    Args:
        request: A fusion, or a file of one.

    Returns:
        The lines; they need those of `loading`.

    Raises:
        UnknownNameError: If the request is about no fusion.
    """
    wanted = fusion_of(request)
    if wanted is None:
        raise UnknownNameError(f"there is no code for the task {request.task!r}")
    parts = [_curvatures(wanted), _ordered(wanted), *_merged(wanted), _reset(wanted)]
    exported = isinstance(request, FusionExportRequest) or not wanted.family.tasks
    parts.append(_written(wanted) if exported else _judged(wanted))
    return Written(
        tuple(line for part in parts for line in part.lines),
        tuple(line for part in parts for line in part.imports),
    )


def _own(wanted: FusionRequest) -> str:
    """Write the line for what each model was trained on; where unknown, the first task."""
    on = tuple(max(0, k) for k in wanted.family.trained_on)
    return f"own = [tasks[k] for k in {_numbers(on)}]  # what each model was trained on"


def _curvatures(wanted: FusionRequest) -> Written:
    card = find_card(wanted.rule)
    if card.needs_fishers and wanted.moments is not None:
        return _second_moments(wanted)
    lines = []
    if card.needs_fishers or card.needs_grams or card.needs_sizes:
        lines.append(_own(wanted))
    if card.needs_fishers:
        lines += [
            *_curvature_function(wanted),
            "fishers = [curvature(params, task) for params, task in zip(models, own)]",
        ]
    if card.needs_base_fisher:
        on = "tasks[0]" if members_of(wanted.family).is_uploaded else "family.data"
        lines.append(f"base_fisher = curvature(base, {on})")
    return Written(tuple(lines))


def _second_moments(wanted: FusionRequest) -> Written:
    """Write lines for curvature from the optimizers' state in the files."""
    moments, members = wanted.moments, members_of(wanted.family, wanted.moments)
    assert moments is not None, "asked for where there are some only"
    with_base = find_card(wanted.rule).needs_base_fisher
    words = ["moments", "models[0]", f"scale={moments.scale!r}"]
    words += ["base=base_moment"] if with_base else []
    lines = [
        f"checkpoints = [{text(members.files[0])}, *files]",
        "moments = [merging.adam_second_moment(file, model=model) for file in checkpoints]",
    ]
    if with_base:
        lines.append(f"base_moment = merging.adam_second_moment({text(members.base)}, model=model)")
    lines += [
        call("curvatures", "curvatures_from_moments", words, of=""),
        "fishers = curvatures.fishers",
        *(["base_fisher = curvatures.base_fisher"] if with_base else []),
    ]
    return Written(
        tuple(lines), ("from merging.fusion.curvature.adam_moments import curvatures_from_moments",)
    )


def _curvature_function(wanted: FusionRequest) -> tuple[str, ...]:
    words = ["model, params, task.train", f"examples={CURVATURE_EXAMPLES}"]
    words += [f"labels={text(wanted.labels)}"] if wanted.labels != FusionRequest.labels else []
    words += seed(wanted.seed)
    return (
        "",
        "",
        "def curvature(params, task):",
        f"    mean = merging.diagonal_fisher({', '.join(words)})",
        "    return merging.on_sum_scale(mean, len(task.train))",
        "",
        "",
    )


def _ordered(wanted: FusionRequest) -> Written:
    if wanted.order is None:
        return Written(spec_lines(wanted) if wanted.rule in ("zipit", "transport") else ())
    words = ["spec", "model", "models", text(wanted.order.kind), *seed(wanted.order.seed)]
    lines = [
        *spec_lines(wanted),
        call("found", "align_many", words),
        "orders = found.permutations",
    ]
    if find_card(wanted.rule).needs_fishers:
        # Before the models are moved: the other tensors are theirs, in their own order.
        lines += [
            "whole = [{**params, **fisher} for params, fisher in zip(models, fishers)]",
            "fishers = [merging.permute(spec, order, one) for order, one in zip(orders, whole)]",
        ]
    lines.append(
        "models = [merging.permute(spec, order, one) for order, one in zip(orders, models)]"
    )
    return Written(tuple(lines))


def _merged(wanted: FusionRequest) -> list[Written]:
    card = find_card(wanted.rule)
    if card.on_networks:
        return [by_networks(wanted)]
    before, imports = _needed(card)
    words = [text(wanted.rule), "models=models"]
    words += ["base=base"] if wanted.family.base else []
    words += weights(wanted)
    words += ["fishers=fishers"] if card.needs_fishers else []
    words += ["base_fisher=base_fisher"] if card.needs_base_fisher else []
    words += ["grams=grams"] if card.needs_grams else []
    words += ["sizes=[len(task.train) for task in own]"] if card.needs_sizes else []
    words += ["model=model", "batches=validation"] if card.needs_data else []
    words += [*options(changed_options(wanted)), *seed(wanted.seed)]
    return [Written((*before, call("merged", "fuse", words)), imports)]


def _needed(card: RuleCard) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Write lines for what a rule needs beside models and curvatures, and their imports."""
    if card.needs_grams:
        return (
            "grams = [",
            f"    merging.gram_matrices(model, params, task.train, examples={CURVATURE_EXAMPLES})",
            "    for params, task in zip(models, own)",
            "]",
        ), ()
    if card.needs_data:
        parts = "[task.validation or task.train for task in tasks]"
        return (f'validation = concatenate({parts}, "validation")',), (CONCATENATE,)
    return (), ()


def _reset(wanted: FusionRequest) -> Written:
    if wanted.statistics != "reset":
        return Written(())
    again = "merged = reset(model, merged, shown)"
    if has_heads(wanted):
        again = "heads = [reset(model, head, shown) for head in heads]"
    lines = (shown("shown", wanted), again)
    return Written(lines, (CONCATENATE, "from merging.landscape import reset"))


def _judged(wanted: FusionRequest) -> Written:
    split = "task.test" if wanted.split == "test" else "task.validation or task.train"
    if has_heads(wanted):
        return judged_heads(wanted, split)
    line = f"accuracies = [float(evaluate(model, merged, {split}).accuracy[0]) for task in tasks]"
    return Written((line,), ("from merging.landscape import evaluate",))


def _written(wanted: FusionRequest) -> Written:
    if has_heads(wanted):
        return written_heads(wanted)
    params = "first.as_brought(merged)" if members_of(wanted.family).is_uploaded else "merged"
    return Written((f'merging.write_checkpoint("merged.safetensors", {params})',))


def _numbers(numbers: tuple[int, ...]) -> str:
    return repr(tuple(numbers))
