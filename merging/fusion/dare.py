"""DARE: drop most of each task vector at random and rescale the rest."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

from merging.fusion.base import FusionProblem, Rule, entrywise
from merging.fusion.signs import elected
from merging.rules import DareOptions, find_rule_card


def dare(problem: FusionProblem, name: str, options: DareOptions) -> Tensor:
    """`base + sum_t w_t m_t (theta_t - base) / (1 - drop)` with random masks `m_t`, or TIES of it.

    The masks depend on the seed, the model's number and the tensor's name only (Yu et al. 2024).
    """
    generators = [
        torch.Generator().manual_seed(zlib.crc32(f"{problem.seed}/{k}/{name}".encode()))
        for k in range(len(problem.models))
    ]
    kept = 1 - options.drop

    def merge(blocks: list[Tensor]) -> Tensor:
        base, *tensors = blocks
        masks = (torch.empty_like(base).bernoulli_(kept, generator=g) for g in generators)
        tasks = [(t - base).mul_(m).div_(kept) for t, m in zip(tensors, masks, strict=True)]
        if options.then == "TIES":
            return base + elected(tasks, problem.weights, options.total)
        total = base.clone()
        for task, weight in zip(tasks, problem.weights, strict=True):
            total.add_(task, alpha=weight)
        return total

    return entrywise(merge, [problem.base_tensor(name), *problem.tensors(name)])


RULE = Rule(find_rule_card("dare"), dare)
