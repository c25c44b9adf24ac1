"""The command `fuse`: two models or more made one, from files or bundled families."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from merging.cli.arguments import read_option
from merging.cli.session import Session
from merging.fusion.fuse_files import fuse_files
from merging.results import requests
from merging.schema.cards.fusion.table import RULE_CARDS, find_way
from merging.schema.errors import MergingError


def fuse(arguments: Namespace, session: Session) -> dict[str, Any]:
    """Fuse models by a rule, judge the result where there are examples, and write it.

    Raises:
        MergingError: If models do not fit, or the rule lacks what it needs.
    """
    options = dict(read_option(text) for text in arguments.option)
    if _streams(arguments):
        return _from_files(arguments, options)
    family = _chosen(session.family(arguments), arguments)
    order = None
    if arguments.order != "none":
        order = requests.OrderRequest(family, arguments.order, arguments.seed)
    wanted = requests.fusion(
        family,
        arguments.rule,
        options,
        weights=_weights(arguments, len(family.models)),
        order=order,
        statistics=arguments.statistics,
        labels=arguments.labels,
        seed=arguments.seed,
        split=arguments.split,
        moments=_moments(arguments, session),
    )
    found: dict[str, Any] = {"rule": find_way(arguments.rule).title}
    if family.configs:
        found["as wide as"] = arguments.models[_first(arguments)]
    scan = requests.tuning(wanted) if arguments.tune else None
    if arguments.tune and scan is None:
        raise MergingError(f"{found['rule']} has no coefficient to tune; leave --tune out")
    if scan is not None:
        result = session.compute(scan)
        wanted = requests.tuned(wanted, result)
        found["best on validation examples"] = {scan.knob: result.best}
    if arguments.out:
        what: Any = "folder" if arguments.out.endswith(".zip") else "weights"
        file = session.compute(
            requests.FusionExportRequest(wanted, what, _prefix(arguments, session))
        )
        Path(arguments.out).write_bytes(file.data)
        found["written"] = arguments.out
    if family.tasks:
        found |= _judged(session, wanted)
    elif not arguments.out:
        raise MergingError("without examples there is nothing to say: give --data, or --out")
    return found


def _chosen(family: requests.Family, arguments: Namespace) -> requests.Family:
    """The models that were asked for, with their base unless that is to be left out."""
    found = family.without_base() if arguments.no_base else family
    return found.of(_members(arguments, len(family.models)))


def _members(arguments: Namespace, count: int) -> tuple[int, ...]:
    """Numbers of the models that were asked for.

    Raises:
        MergingError: If there are no such models.
    """
    if arguments.members is None:
        return tuple(range(count))
    numbers = arguments.members.split(",")
    if not all(text.isdecimal() and int(text) < count for text in numbers):
        raise MergingError(
            f"--members takes numbers from 0 to {count - 1} with commas between, such as 0,1, not "
            f"{arguments.members!r}"
        )
    return tuple(dict.fromkeys(int(text) for text in numbers))


def _moments(arguments: Namespace, session: Session) -> requests.Moments | None:
    """Adam's second moments in the files, if curvature is to be from there.

    Raises:
        MergingError: If a model has none.
    """
    if not _from_optimizer(arguments):
        return None
    count, found = len(arguments.models), session.second_moments
    if not found:
        raise MergingError(
            "bundled models come without the state of an optimizer; leave --fisher-from out"
        )
    members = _members(arguments, count)
    if not all(found[k] for k in members):
        lacking = arguments.models[next(k for k in members if not found[k])]
        notes = [n for n in session.notes if n.startswith(f"{Path(lacking).name}: No curvature")]
        why = notes[0] if notes else f"{lacking}: holds no state of an optimizer"
        raise MergingError(f"{why.rstrip('.')}; leave --fisher-from out, and give --data")
    base = found[count] if len(found) > count and not arguments.no_base else ""
    return requests.Moments(found[:count], base, arguments.moment_scale).of(members)


def _from_optimizer(arguments: Namespace) -> bool:
    return arguments.fisher_from == "optimizer" and find_way(arguments.rule).needs_fishers


def _prefix(arguments: Namespace, session: Session) -> str:
    """What was cut off the names of the first model's file; nothing of bundled ones."""
    return session.prefixes.get(str(_first(arguments)), "")


def _first(arguments: Namespace) -> int:
    """Number of the model whose form, and whose widths, the result has."""
    return 0 if arguments.members is None else int(arguments.members.split(",")[0])


def _judged(session: Session, wanted: requests.FusionRequest) -> dict[str, Any]:
    score = session.compute(wanted)
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


def _streams(arguments: Namespace) -> bool:
    """Whether tensors can go from file to file one by one: nothing else has to be known."""
    card = find_way(arguments.rule)
    measured = card.needs_fishers and not _from_optimizer(arguments)
    needs = card.needs_data or measured or card.needs_grams or card.needs_sizes
    named = len(arguments.models) == 1
    judged = arguments.data or arguments.tune or arguments.order != "none"
    changed = arguments.statistics != "merged" or arguments.members or arguments.no_base
    noted = arguments.recipe_out  # what makes a result again computes it from requests
    out = arguments.out or ".zip"
    return (
        not (named or judged or changed or noted or needs or out.endswith(".zip"))
        and arguments.rule in RULE_CARDS
    )


def _from_files(arguments: Namespace, options: dict[str, Any]) -> dict[str, Any]:
    weights = _weights(arguments, len(arguments.models))
    done = fuse_files(
        arguments.rule,
        arguments.models,
        arguments.out,
        base=arguments.base,
        weights=weights or None,
        fishers="optimizer" if _from_optimizer(arguments) else None,
        moment_scale=arguments.moment_scale,
        options=options,
        seed=arguments.seed,
    )
    return {
        "rule": find_way(arguments.rule).title,
        "written": [str(path) for path in done.files],
        "notes": dict(done.notes),
    }


def _weights(arguments: Namespace, count: int) -> tuple[float, ...]:
    """One number per model; one number alone is for all of them.

    Raises:
        MergingError: If it is no list of numbers.
    """
    if arguments.weights is None:
        return ()
    try:
        given = tuple(float(text) for text in arguments.weights.split(","))
    except ValueError:
        raise MergingError(
            f"--weights takes numbers with commas between, such as 0.5,0.5, not "
            f"{arguments.weights!r}"
        ) from None
    return given * count if len(given) == 1 else given
