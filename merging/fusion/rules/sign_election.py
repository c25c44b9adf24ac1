"""Election of signs, which TIES and DARE share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from merging.fusion.blocks import Entries, entrywise
from merging.schema.cards.fusion.task_vectors import Total


def threshold(tensor: Entries, base: Entries, density: float) -> float:
    """Return the least size of a task vector's entry that is kept when it is trimmed.

    Args:
        tensor: Of the model.
        base: Of the base.
        density: Share of the entries to keep; of equal ones at the edge all are kept.

    Returns:
        A size; 0 if everything is kept.
    """
    count = math.prod(tensor.shape)
    kept = max(1, int(density * count + 1e-9))
    if kept >= count:
        return 0.0
    sizes = entrywise(lambda blocks: (blocks[0] - blocks[1]).abs_(), [tensor, base])
    wide = torch.promote_types(sizes.dtype, torch.float32)
    held = sizes.tensor(wide).view(-1).numpy()
    held.partition(count - kept)  # in place: the difference is this function's own
    return float(held[count - kept])


def elected(tasks: Sequence[Tensor], weights: Sequence[float], total: Total) -> Tensor:
    """Add or average, by weight, the entries that have the sign of the weighted sum.

    Args:
        tasks: Blocks of task vectors, trimmed or dropped to 0 where they do not count.
        weights: One number each.
        total: `"averaged"` divides by the weights of those that agree; `"added"` does not.

    Returns:
        The merged block. Where the sum is 0, the sign is plus.

    Example:
        >>> elected([torch.tensor([4.0]), torch.tensor([-1.0])], [1, 1], "averaged")
        tensor([4.])
    """
    weighted = [task * weight for task, weight in zip(tasks, weights, strict=True)]
    # The sum of those that agree is the larger of the positive and the negative part.
    plus, minus = (torch.zeros_like(tasks[0]) for _ in range(2))
    for part in weighted:
        plus += part.clamp_min(0)
        minus += part.clamp_max(0)
    upwards = plus + minus >= 0
    merged = torch.where(upwards, plus, minus)
    if total == "added":
        return merged
    counted = torch.zeros_like(merged)
    for part, weight in zip(weighted, weights, strict=True):
        counted.add_((part != 0) & ((part > 0) == upwards), alpha=abs(weight))
    return merged / counted.clamp_min_(1e-30)
