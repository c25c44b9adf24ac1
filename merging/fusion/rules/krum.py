"""Krum: the model that lies nearest to most others, or the mean of a few such."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from merging.fusion.blocks import squared_distances
from merging.fusion.problem import FusionProblem
from merging.fusion.rule import Rule, weighted_mean
from merging.schema.cards.fusion.robust import KrumOptions
from merging.schema.cards.fusion.table import find_card
from merging.schema.errors import MergingError
from merging.schema.progress import Progress


def choose(problem: FusionProblem, options: KrumOptions, on_progress: Progress) -> FusionProblem:
    """Keep the models with the least distance to their nearest others (Blanchard et al. 2017).

    Distances are squared, over all parameters of the whole models; statistics do not count. A
    model that holds NaN or infinity anywhere is infinitely far from all others.

    Raises:
        MergingError: If there are too few models for so many bad ones, or for so many to keep; or
            too many hold NaN or infinity.
    """
    count = len(problem.models)
    faulty = (count - 3) // 2 if options.faulty < 0 else options.faulty
    nearest = count - faulty - 2
    if nearest < 1 or options.kept > count - faulty:
        raise MergingError(
            f"Krum cannot keep {options.kept} of {count} models when {faulty} may be bad; give "
            f"more models, or assume {max(0, (count - 3) // 2)} bad ones at most and keep fewer"
        )
    distances = _distances(problem, on_progress)
    others = distances.sort(1).values[:, 1 : nearest + 1]  # the first is the distance to itself
    scores = others.sum(1).tolist()
    kept = sorted(sorted(range(count), key=scores.__getitem__)[: options.kept])
    if not all(math.isfinite(scores[k]) for k in kept):
        raise MergingError(
            f"Krum cannot keep {options.kept} of {count} models: too many hold NaN or infinity, or "
            "are too far from all others to be measured; leave those out, or let more models be bad"
        )
    weights = [float(k in kept) for k in range(count)]
    return problem.reweighted(weights, kept=kept, scores=scores, faulty=faulty)


def _distances(problem: FusionProblem, on_progress: Progress) -> Tensor:
    """Return the squared distances of all pairs, float64 `[models, models]`."""
    first = problem.models[0]
    names = [n for n in first if problem.is_floating(n) and n not in problem.statistics]
    count = len(problem.models)
    distances = torch.zeros(count, count, dtype=torch.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        for done, name in enumerate(names):
            distances += squared_distances(problem.tensors(name))
            on_progress(done + 1, len(names), f"distances: {name}")
        for name in problem.statistics:
            found = squared_distances(problem.tensors(name))
            distances.masked_fill_(~found.isfinite(), torch.inf)
    return distances.masked_fill_(distances.isnan(), torch.inf)


RULE = Rule(find_card("krum"), weighted_mean, choose)
