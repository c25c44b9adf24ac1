"""Loss and answer of every example, by what its target is: a class, next tokens, or numbers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from merging.schema.errors import DataError
from merging.schema.records.loss_unit import LossUnit


def score(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss and the answer of every example.

    | targets | outputs | loss | answer |
    |---|---|---|---|
    | int64 `[n]` | `[n, classes]` | cross-entropy, nats | bool: the largest output is the class |
    | int64 `[n]`, 0 or 1 | `[n, 1]` | binary cross-entropy, nats | bool: yes from 0 upwards |
    | int64 `[n, length]` | `[n, length, vocabulary]` | mean over tokens, nats | share of tokens |
    | floating `[n]` or `[n, k]` | `[n, k]` | mean squared error | NaN: nothing is right or wrong |

    Args:
        outputs: What the model returned.
        targets: What was wanted. Negative tokens are left out of the means.

    Returns:
        Losses, float32 `[n]`, and answers, bool or float32 `[n]`.

    Raises:
        DataError: If the outputs are not of that form, or a label has no output.
    """
    if targets.is_floating_point():
        return _squared_error(outputs, targets)
    if targets.dim() == 2:
        return _tokens(outputs, targets)
    if outputs.dim() != 2 or len(outputs) != len(targets):
        raise DataError(_misfit(outputs, targets, "one row of class scores per example"))
    classes = max(outputs.shape[1], 2)
    _check_labels(targets, classes)
    if outputs.shape[1] == 1:
        answer = outputs[:, 0]
        loss = F.binary_cross_entropy_with_logits(
            answer, targets.to(answer.dtype), reduction="none"
        )
        return loss.float(), (answer >= 0) == (targets == 1)
    loss = F.cross_entropy(outputs, targets, reduction="none")
    return loss.float(), outputs.argmax(1) == targets


def unit_for(targets: Tensor) -> LossUnit:
    """Return the unit of the loss that `score` gives for these targets."""
    return "squared error" if targets.is_floating_point() else "nats"


def _squared_error(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    wanted = targets[:, None] if targets.dim() == 1 else targets
    if outputs.shape != wanted.shape:
        raise DataError(_misfit(outputs, targets, "one number per number that is wanted"))
    loss = (outputs - wanted).square().mean(1).float()
    return loss, torch.full_like(loss, float("nan"), requires_grad=False)


def _tokens(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    if outputs.dim() != 3 or outputs.shape[:2] != targets.shape:
        raise DataError(_misfit(outputs, targets, "one row of scores per token"))
    counted = targets >= 0
    _check_labels(targets[counted], outputs.shape[2])
    losses = F.cross_entropy(
        outputs.transpose(1, 2), targets.where(counted, -100), reduction="none", ignore_index=-100
    )
    tokens = counted.sum(1).clamp_min(1)
    right = (outputs.argmax(2) == targets) & counted
    return (losses.sum(1) / tokens).float(), right.sum(1) / tokens


def _check_labels(targets: Tensor, classes: int) -> None:
    if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < classes:
        raise DataError(
            f"labels run from {int(targets.min())} to {int(targets.max())}, but the model tells "
            f"{classes} classes apart; expected labels from 0 to {classes - 1}"
        )


def _misfit(outputs: Tensor, targets: Tensor, wanted: str) -> str:
    return (
        f"the model's output has shape {list(outputs.shape)} for {len(targets)} examples, whose "
        f"targets have shape {list(targets.shape)}; expected {wanted}"
    )
