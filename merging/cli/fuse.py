"""The command `fuse`: two models or more made one, from files or bundled families."""

from __future__ import annotations

from typing import Any, Literal

from merging.cli.opened import OpenedModels, open_models
from merging.cli.session import Answer, Computed, Session
from merging.cli.wanted_fusion import Fuse
from merging.files.checkpoints.by_name import is_torch_name, write_as_named
from merging.fusion.fuse_files import fuse_files
from merging.results import requests
from merging.schema.errors import MergingError


def fuse(asked: Fuse, session: Session) -> Answer:
    """Fuse models by a rule, judge the result where there are examples, and write it.

    Raises:
        MergingError: If models do not fit, or the rule lacks what it needs.
    """
    if asked.streams:
        return _from_files(asked)
    if asked.out:
        is_torch_name(asked.out)  # a name that promises another kind of file is refused
    models = open_models(asked.named, session.store)
    family = asked.family(models.family)
    first = asked.chosen(len(models.family.models))[0]
    fusion = asked.request(family, _moments(asked, models))
    found: dict[str, Any] = {"rule": asked.card.title}
    if family.configs:
        found["as wide as"] = asked.named.models[first]
    if asked.tune:
        fusion, said = _tuned(asked, fusion, session)
        found |= said
    last = None
    if asked.out:
        last = session.run(_file(asked.out, fusion, models.prefix(first)))
        write_as_named(asked.out, last.result.data)
        found["written"] = asked.out
    if family.tasks:
        last = session.run(fusion)
        found |= _judged(last)
    if last is None:
        raise MergingError("without examples there is nothing to report: give --data, or --out")
    return Answer(found, models.origin.notes, last.recipe(models.origin))


def _tuned(
    asked: Fuse, fusion: requests.FusionRequest, session: Session
) -> tuple[requests.FusionRequest, dict[str, Any]]:
    """Choose the coefficient on validation examples, and say which it is.

    Raises:
        MergingError: If the rule has none.
    """
    scan = requests.tuning(fusion)
    if scan is None:
        raise MergingError(f"{asked.card.title} has no coefficient to tune; leave --tune out")
    result = session.compute(scan)
    return requests.tuned(fusion, result), {"best on validation examples": {scan.knob: result.best}}


def _file(out: str, fusion: requests.FusionRequest, prefix: str) -> requests.FusionExportRequest:
    what: Literal["folder", "weights"] = "folder" if out.endswith(".zip") else "weights"
    return requests.FusionExportRequest(fusion, what, prefix)


def _moments(asked: Fuse, models: OpenedModels) -> requests.Moments | None:
    """Return Adam's second moments in the files, if curvature is to be from there.

    Raises:
        MergingError: If a model has none.
    """
    if not asked.from_optimizer:
        return None
    if not models.files:
        raise MergingError(
            "bundled models come without the state of an optimizer; leave --fisher-from out"
        )
    chosen = asked.chosen(len(models.files))
    for number in chosen:
        if not models.files[number].second_moment:
            why = _why_no_moment(asked, models, number)
            raise MergingError(f"{why}; leave --fisher-from out, and give --data")
    base = models.base.second_moment if models.base and not asked.no_base else ""
    moments = requests.Moments(
        tuple(file.second_moment for file in models.files), base, asked.moment_scale
    )
    return moments.of(chosen)


def _why_no_moment(asked: Fuse, models: OpenedModels, number: int) -> str:
    file = models.files[number]
    if file.no_second_moment:
        return f"{file.name}: {file.no_second_moment.rstrip('.')}"
    return f"{asked.named.models[number]}: holds no state of an optimizer"


def _judged(computed: Computed) -> dict[str, Any]:
    score = computed.result
    return {
        "accuracy": score.accuracy,
        "accuracy standard error": score.accuracy_error,
        "loss": score.loss,
        "accuracy by task": [task.accuracy for task in score.tasks],
        "calibration error": score.calibration_error,
        "distances from the models": list(score.distances),
        "gradient mismatch": score.mismatch,
        "notes": dict(score.notes),
    }


def _from_files(asked: Fuse) -> Answer:
    """Fuse files tensor by tensor, so that whole models need not fit in memory."""
    named = asked.named
    assert asked.out is not None, "what streams has a file to write"
    done = fuse_files(
        asked.rule,
        named.models,
        asked.out,
        base=named.base or None,
        weights=asked.weights_of(len(named.models)) or None,
        fishers="optimizer" if asked.from_optimizer else None,
        moment_scale=asked.moment_scale,
        options=asked.options,
        seed=asked.seed,
    )
    written = [str(path) for path in done.files]
    return Answer({"rule": asked.card.title, "written": written, "notes": dict(done.notes)})
