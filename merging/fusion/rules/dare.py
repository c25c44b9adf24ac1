"""DARE: drop most of each task vector at random and rescale the rest."""

from __future__ import annotations

import zlib

import numpy as np
from torch import Tensor

from merging.fusion.blocks import Entries, entrywise
from merging.fusion.problem import FusionProblem
from merging.fusion.rule import Rule
from merging.fusion.rules.sign_election import elected
from merging.schema.cards.fusion.table import find_card
from merging.schema.cards.fusion.task_vectors import DareOptions

_LEVELS = 1 << 16


def dare(problem: FusionProblem, name: str, options: DareOptions) -> Entries:
    """Return `base + sum_t w_t m_t (theta_t - base) / (1 - drop)`, `m_t` random; or TIES of it.

    The masks depend on the seed, the model's number and the tensor's name only (Yu et al. 2024).
    The share that is kept is a multiple of 1 / 65,536, and what is kept is rescaled by that.
    """
    seeds = [zlib.crc32(f"{problem.seed}/{k}/{name}".encode()) for k in range(len(problem.models))]
    generators = [np.random.Generator(np.random.SFC64(seed)) for seed in seeds]
    kept = round((1 - options.drop) * _LEVELS) / _LEVELS

    def merge(blocks: list[Tensor]) -> Tensor:
        base, *tensors = blocks
        tasks = [tensor - base for tensor in tensors]
        for task, generator in zip(tasks, generators, strict=True):
            if kept < 1:
                # Two random bytes decide on an entry: a fifth of the time of random floats.
                draws = np.frombuffer(generator.bytes(2 * len(task)), np.uint16)
                values = task.numpy()
                np.multiply(values, draws < kept * _LEVELS, out=values)
        if options.then == "TIES":
            merged = elected(tasks, problem.weights, options.total)
            return base.add(merged, alpha=1 / kept)
        total = base.clone()
        for task, weight in zip(tasks, problem.weights, strict=True):
            total.add_(task, alpha=weight / kept)
        return total

    return entrywise(merge, [problem.base_tensor(name), *problem.tensors(name)])


RULE = Rule(find_card("dare"), dare)
