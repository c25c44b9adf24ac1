"""Model Stock: between the mean and the base, as far as the angles between models say."""

from __future__ import annotations

import math
from itertools import combinations

from torch import Tensor

from merging.fusion.blocks import Entries, entrywise, inner_products
from merging.fusion.problem import FusionProblem
from merging.fusion.rule import Rule
from merging.schema.cards.fusion.card import NoOptions
from merging.schema.cards.fusion.table import find_card


def model_stock(problem: FusionProblem, name: str, _: NoOptions) -> Entries:
    """Return `t * mean + (1 - t) * base` with `t = K cos / ((K - 1) cos + 1)`, for every tensor."""
    base, tensors = problem.base_tensor(name), problem.tensors(name)
    products = inner_products(tensors, base).tolist()
    cosines = []
    for a, b in combinations(range(len(tensors)), 2):
        lengths = math.sqrt(products[a][a]) * math.sqrt(products[b][b])
        cosines.append(products[a][b] / lengths if lengths else 1.0)
    count, cosine = len(tensors), max(0.0, sum(cosines) / len(cosines))
    share = count * cosine / ((count - 1) * cosine + 1)

    def merge(blocks: list[Tensor]) -> Tensor:
        total = blocks[0] * (1 - share)
        for block in blocks[1:]:
            total.add_(block, alpha=share / count)
        return total

    return entrywise(merge, [base, *tensors])


RULE = Rule(find_card("model_stock"), model_stock)
