"""The greedy soup: models join the mean, best first, as long as validation accuracy rises."""

from __future__ import annotations

import math

from merging.files.checkpoints.lazy_params import Params, StateDict
from merging.fusion.blocks import computable, specs_of
from merging.fusion.problem import FusionProblem
from merging.fusion.rule import Rule, type_of_examples, weighted_mean
from merging.landscape.evaluate.evaluation import evaluate
from merging.schema.cards.fusion.card import NoOptions
from merging.schema.cards.fusion.table import find_card
from merging.schema.errors import DataError
from merging.schema.progress import Progress


def choose(problem: FusionProblem, _: NoOptions, on_progress: Progress) -> FusionProblem:
    """Find the members (Wortsman et al. 2022, Recipe 1); of equal models the earlier comes first.

    Notes: `kept`, the members' numbers from 0 in the order in which they joined; `accuracies` of
    the single models; `accuracy` of the soup.
    """
    count = len(problem.models)
    steps = 2 * count - 1
    accuracies = []
    for k, model in enumerate(problem.models):
        accuracies.append(_accuracy(problem, dict(model.items())))
        on_progress(k + 1, steps, f"model {k + 1} alone")
    order = sorted(range(count), key=lambda k: -accuracies[k])
    kept, best = [order[0]], accuracies[order[0]]
    soup = dict(problem.models[order[0]].items())
    for done, k in enumerate(order[1:]):
        tried = _joined(soup, problem.models[k], len(kept))
        accuracy = _accuracy(problem, _in_types_of(tried, problem.models[0]))
        if accuracy > best:
            soup, best, kept = tried, accuracy, [*kept, k]
        on_progress(count + done + 1, steps, f"with model {k + 1}")
    weights = [float(k in kept) for k in range(count)]
    return problem.reweighted(weights, kept=kept, accuracies=accuracies, accuracy=best)


def _accuracy(problem: FusionProblem, params: Params) -> float:
    model, batches = problem.model, problem.batches
    assert model is not None  # the problem was checked against the card
    assert batches is not None
    dtype = type_of_examples(batches)
    readable = {n: v.to(dtype) if v.is_floating_point() else v for n, v in params.items()}
    accuracy = float(evaluate(model, readable, batches).accuracy[0])
    if math.isnan(accuracy):
        raise DataError(
            "a greedy soup compares the accuracy of its models, but these examples have numbers as "
            "targets and no classes; give examples with classes, or choose another rule"
        )
    return accuracy


def _joined(soup: Params, model: StateDict, members: int) -> Params:
    """Return the mean of a soup of so many members and one more model; wide, to be rounded once."""
    joined: Params = {}
    for name, value in soup.items():
        joined[name] = value
        if value.is_floating_point():
            total = computable(value) * members
            joined[name] = total.add_(computable(model[name])).div_(members + 1)
    return joined


def _in_types_of(params: Params, model: StateDict) -> Params:
    specs = specs_of(model)
    return {name: value.to(specs[name].dtype) for name, value in params.items()}


RULE = Rule(find_card("greedy_soup"), weighted_mean, choose)
