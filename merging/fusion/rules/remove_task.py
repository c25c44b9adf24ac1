"""Taking tasks out of a model again (Daheim et al. 2024, Eq. 13–14, arXiv 2310.12808)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from merging.files.checkpoints.lazy_params import Params
from merging.fusion.blocks import entrywise
from merging.fusion.problem import FusionProblem
from merging.fusion.rule import Counted, Rule
from merging.schema.cards.fusion.curvature import RemoveTaskOptions
from merging.schema.cards.fusion.table import find_card


def remove_tasks(problem: FusionProblem, name: str, options: RemoveTaskOptions) -> Counted:
    """Return `base - sum_t a_t (H_0 + H_t) / (H_0 - sum_s a_s H_s) (theta_t - base)`.

    Where `H_0 - sum_s a_s H_s` is below `least`, it is clamped, and the entry is counted.
    """
    weights, count = problem.weights, len(problem.weights)
    counts = {"clamped": 0}

    def step(blocks: list[Tensor]) -> Tensor:
        base, h0, *rest = blocks
        h0 = h0 + options.delta
        remaining = h0.clone()
        for weight, curvature in zip(weights, rest[count:], strict=True):
            remaining.sub_(curvature, alpha=weight)
        counts["clamped"] += int((remaining < options.least).sum())
        remaining.clamp_min_(options.least)
        removed = base.clone()
        for weight, theta, curvature in zip(weights, rest[:count], rest[count:], strict=True):
            removed -= weight * (h0 + curvature) / remaining * (theta - base)
        return removed

    tensors = [
        problem.base_tensor(name), problem.base_curvature(name),
        *problem.tensors(name), *problem.curvatures(name),
    ]  # fmt: skip
    return Counted(entrywise(step, tensors), counts)


def remove_task(
    base: Mapping[str, Tensor],
    model: Mapping[str, Tensor],
    base_fisher: Mapping[str, Tensor],
    fisher: Mapping[str, Tensor],
    *,
    weight: float = 1.0,
    delta: float = 1e-12,
    least: float = 1e-12,
) -> tuple[Params, float]:
    """Take what a model learned out of its base again (Eq. 13–14).

    The rule `"remove_task"` does the same for any number of models at once.

    Args:
        base: The base model, whose training data include the task's.
        model: The base fine-tuned on the task.
        base_fisher: Diagonal curvature of the base, on the scale of the sum.
        fisher: Diagonal curvature of the task, on the scale of the sum.
        weight: How much of it to remove.
        delta: The prior's precision.
        least: Where `H_0 - weight * H_t` falls below this, it is clamped.

    Returns:
        The state dict, and the share of the entries that were clamped.

    Example:
        >>> import torch
        >>> base, model = {"w": torch.tensor([1.0])}, {"w": torch.tensor([2.0])}
        >>> remove_task(base, model, {"w": torch.tensor([3.0])}, {"w": torch.tensor([1.0])})
        ({'w': tensor([-1.])}, 0.0)
    """
    problem = FusionProblem(
        models=[model], base=base, weights=[weight], fishers=[fisher], base_fisher=base_fisher
    )
    options = RemoveTaskOptions(delta, least)
    removed: Params = {}
    clamped = entries = 0
    for name, value in base.items():
        if not value.is_floating_point():
            removed[name] = value.clone()
            continue
        step = remove_tasks(problem, name, options)
        removed[name] = step.value.tensor()
        clamped, entries = clamped + step.counts["clamped"], entries + value.numel()
    return removed, clamped / max(1, entries)


RULE = Rule(find_card("remove_task"), remove_tasks)
