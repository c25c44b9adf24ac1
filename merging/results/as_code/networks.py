"""Rules that work on whole networks, as lines of Python, and models with heads of their own."""

from __future__ import annotations

import json

from merging.results.as_code.families import changed_options, members_of
from merging.results.as_code.lines import Written, call, options, seed
from merging.results.requests import SHOWN_EXAMPLES, FusionRequest

CONCATENATE = "from merging.files.data.batches import concatenate"
_IMPORTS = {
    "zipit": "from merging.fusion.networks.zipit import zip_models",
    "transport": "from merging.fusion.networks.transport import fuse_by_transport",
    "distillation": "from merging.fusion.networks.distill import distill",
}
_PREDICTIONS = "from merging.landscape.evaluate.predictions import answers, ensemble, predict"


def has_heads(wanted: FusionRequest) -> bool:
    """Return whether every model keeps a head of its own."""
    return wanted.rule == "zipit" and bool(json.loads(wanted.options)["depth"])


def spec_lines(wanted: FusionRequest) -> tuple[str, ...]:
    """Write lines that find `spec`; or `specs`, where models differ in widths."""
    if wanted.family.configs:
        return (
            "specs = [",
            "    merging.find_symmetry(one.model, one.example_inputs) for one in (first, *others)",
            "]",
        )
    is_uploaded = members_of(wanted.family).is_uploaded
    inputs = "first.example_inputs" if is_uploaded else "(tasks[0].test.inputs[:2],)"
    return (f"spec = merging.find_symmetry(model, {inputs})",)


def by_networks(wanted: FusionRequest) -> Written:
    """Write lines that make `merged`, or `heads`, of `models`."""
    makes = {"zipit": _zipped, "transport": _transported, "distillation": _distilled}
    lines = (_training(wanted), *makes[wanted.rule](wanted))
    return Written(lines, (_IMPORTS[wanted.rule], CONCATENATE))


def _zipped(wanted: FusionRequest) -> tuple[str, ...]:
    words = ["spec", "model", "models", "examples", *options(changed_options(wanted))]
    result = "heads = list(made.heads)" if has_heads(wanted) else "merged = made.heads[0]"
    return call("made", "zip_models", words, of=""), result


def _transported(wanted: FusionRequest) -> tuple[str, ...]:
    count = len(wanted.family.models)
    networks, specs = f"[model] * {count}", f"[spec] * {count}"
    if wanted.family.configs:  # the result has the widths of the first
        networks, specs = "[one.model for one in (first, *others)]", "specs"
    words = [
        networks,
        "models",
        specs,
        "examples",
        *weights(wanted),
        *options(changed_options(wanted)),
    ]
    return call("made", "fuse_by_transport", words, of=""), "merged = made.params"


def _distilled(wanted: FusionRequest) -> tuple[str, ...]:
    mean = ['"average"', "models=models", *weights(wanted)]
    words = [
        "model",
        "start",
        "models",
        "examples",
        *options(changed_options(wanted)),
        *seed(wanted.seed),
    ]
    return (
        call("start", "fuse", mean),
        call("made", "distill", words, of=""),
        "merged = made.params",
    )


def _training(wanted: FusionRequest) -> str:
    """Write the line for the examples that a way trains or measures on."""
    if wanted.rule == "distillation":
        return 'examples = concatenate([task.train for task in tasks], "train")'
    return shown("examples", wanted)


def shown(target: str, wanted: FusionRequest) -> str:
    """Write the line for some training examples of all tasks, as many of each.

    Args:
        target: The name that they get.
        wanted: The fusion.

    Returns:
        The line.
    """
    share = -(-SHOWN_EXAMPLES // max(1, len(wanted.family.tasks)))
    return f'{target} = concatenate([task.train.take({share}) for task in tasks], "train")'


def judged_heads(wanted: FusionRequest, split: str) -> Written:
    """Write lines that let the heads of the models that were trained on a task answer it."""
    family = wanted.family
    everyone = list(range(len(family.models)))
    answering = [
        [k for k in everyone if family.trained_on[k] == task] or everyone
        for task in range(len(family.tasks))
    ]
    lines = (
        f"answering = {answering}  # which heads answer each task",
        "accuracies = []",
        "for task, chosen in zip(tasks, answering):",
        f"    batches = {split}",
        '    outputs = ensemble([predict(model, heads[k], batches) for k in chosen], "logits")',
        "    accuracies.append(float((answers(outputs) == batches.targets).double().mean()))",
    )
    return Written(lines, (_PREDICTIONS,))


def written_heads(wanted: FusionRequest) -> Written:
    """Write lines that put all heads into one file, as `merging.fusion.multi_head` names them."""
    is_uploaded = members_of(wanted.family).is_uploaded
    head = 'first.as_brought(head, prefix="")' if is_uploaded else "head"
    lines = (
        "together = {",
        '    f"heads.{k}.{name}": value',
        "    for k, head in enumerate(heads)",
        f"    for name, value in {head}.items()",
        "}",
        'merging.write_checkpoint("merged.safetensors", together)',
    )
    return Written(lines)


def weights(wanted: FusionRequest) -> list[str]:
    """Return the argument for the numbers per model, where there are any."""
    return [f"weights={list(wanted.weights)!r}"] if wanted.weights else []
