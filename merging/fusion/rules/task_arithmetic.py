"""Task arithmetic: what fine-tuning added, added up, taken away, or carried over."""

from __future__ import annotations

from torch import Tensor

from merging.fusion.blocks import Entries, entries, entrywise
from merging.fusion.problem import FusionProblem
from merging.fusion.rule import Rule
from merging.schema.cards.fusion.table import find_card
from merging.schema.cards.fusion.task_vectors import TaskArithmeticOptions
from merging.schema.errors import MergingError
from merging.schema.progress import Progress


def scale_tasks(
    problem: FusionProblem, options: TaskArithmeticOptions, _: Progress
) -> FusionProblem:
    """Give each task vector its factor (Ilharco et al. 2023, §2): the mode is one of signs.

    Raises:
        MergingError: If an analogy is not of three models.
    """
    signs = [-1.0 if options.mode == "negate" else 1.0] * len(problem.models)
    if options.mode == "analogy":
        if len(problem.models) != 3:
            raise MergingError(
                f"an analogy takes three models, not {len(problem.models)}: the first is to the "
                "second as the third is to the result"
            )
        signs = [-1.0, 1.0, 1.0]
    factors = [options.scale * s * w for s, w in zip(signs, problem.weights, strict=True)]
    return problem.reweighted(factors, factors=factors)


def task_arithmetic(problem: FusionProblem, name: str, _: TaskArithmeticOptions) -> Entries:
    """Return `base + sum_t w_t (theta_t - base)`; models of weight 0 are not read."""
    used = {k: weight for k, weight in enumerate(problem.weights) if weight}

    def merge(blocks: list[Tensor]) -> Tensor:
        base, *tensors = blocks
        total = base.clone()
        for tensor, weight in zip(tensors, used.values(), strict=True):
            total.add_(tensor - base, alpha=weight)
        return total

    tensors = [entries(problem.models[k], name) for k in used]
    return entrywise(merge, [problem.base_tensor(name), *tensors])


RULE = Rule(find_card("task_arithmetic"), task_arithmetic, scale_tasks)
