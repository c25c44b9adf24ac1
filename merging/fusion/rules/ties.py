"""TIES: trim, elect signs, and average what agrees."""

from __future__ import annotations

from torch import Tensor

from merging.fusion.blocks import Entries, entrywise
from merging.fusion.problem import FusionProblem
from merging.fusion.rule import Rule
from merging.fusion.rules.sign_election import elected, threshold
from merging.schema.cards.fusion.table import find_card
from merging.schema.cards.fusion.task_vectors import TiesOptions


def ties(problem: FusionProblem, name: str, options: TiesOptions) -> Entries:
    """Trim each task vector within the tensor, take the sign of the sum, average what has it.

    The sum is that of the weighted, trimmed task vectors (Yadav et al. 2023, Algorithm 1).
    """
    base, tensors = problem.base_tensor(name), problem.tensors(name)
    least = [threshold(tensor, base, options.density) for tensor in tensors]

    def merge(blocks: list[Tensor]) -> Tensor:
        origin, *thetas = blocks
        tasks = [theta - origin for theta in thetas]
        for task, size in zip(tasks, least, strict=True):
            if size:
                task.masked_fill_(task.abs() < size, 0.0)
        return origin.add(elected(tasks, problem.weights, options.total), alpha=options.scale)

    return entrywise(merge, [base, *tensors])


RULE = Rule(find_card("ties"), ties)
