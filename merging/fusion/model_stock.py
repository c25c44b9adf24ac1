"""Model Stock: between the mean and the base, as far as the angles between models say."""

from __future__ import annotations

import math
from itertools import combinations

from torch import Tensor

from merging.fusion.base import FusionProblem, Rule, entrywise, inner
from merging.rules import NoOptions, find_rule_card


def model_stock(problem: FusionProblem, name: str, _: NoOptions) -> Tensor:
    """`t * mean + (1 - t) * base` with `t = K cos / ((K - 1) cos + 1)`, for every tensor."""
    base, tensors = problem.base_tensor(name), problem.tensors(name)
    lengths = [math.sqrt(inner(tensor, tensor, base)) for tensor in tensors]
    cosines = []
    for (a, length_a), (b, length_b) in combinations(zip(tensors, lengths, strict=True), 2):
        lengths_both = length_a * length_b
        cosines.append(inner(a, b, base) / lengths_both if lengths_both else 1.0)
    count, cosine = len(tensors), max(0.0, sum(cosines) / len(cosines))
    share = count * cosine / ((count - 1) * cosine + 1)

    def merge(blocks: list[Tensor]) -> Tensor:
        total = blocks[0] * (1 - share)
        for block in blocks[1:]:
            total.add_(block, alpha=share / count)
        return total

    return entrywise(merge, [base, *tensors])


RULE = Rule(find_rule_card("model_stock"), model_stock)
