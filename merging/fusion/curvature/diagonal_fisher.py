"""Diagonal curvature: means of squared per-example gradients, fast."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from merging.files.checkpoints.lazy_params import Params
from merging.files.data.batches import BatchesLike
from merging.fusion.curvature.per_example_squares import SumOfSquares
from merging.models.state_dict import floating
from merging.schema.cards.fusion.curvature import Labels
from merging.schema.errors import DataError, MergingError, UnknownNameError


def diagonal_fisher(
    model: nn.Module,
    params: Mapping[str, Tensor],
    batches: BatchesLike,
    *,
    labels: Labels = "sampled",
    examples: int | None = None,
    seed: int = 0,
) -> Params:
    """Return the mean over examples of the squared gradient of the log-likelihood, entry by entry.

    Take it on training data. Multiply by the size of the data set for the scale of the sum, which
    fusing needs (`on_sum_scale`; Daheim et al. 2024, §3).

    Args:
        model: The architecture.
        params: State dict.
        batches: Any re-iterable of `(inputs, class numbers)`.
        labels: `"sampled"` draws one label per example from the model itself (the Fisher
            information); `"true"` takes the data's (the empirical Fisher).
        examples: Examples to take at most; all by default.
        seed: Of the drawn labels.

    Returns:
        One tensor per floating entry of the state dict; zeros for buffers.

    Raises:
        UnknownNameError: If `labels` is neither.
        DataError: If there are no examples, or their targets are not class numbers.
    """
    if labels not in ("sampled", "true"):
        raise UnknownNameError(f"unknown labels {labels!r}; choose from 'sampled', 'true'")
    generator = torch.Generator().manual_seed(seed) if labels == "sampled" else None
    sums: SumOfSquares | None = None
    left = examples if examples is not None else float("inf")
    was_training = model.training
    model.eval()
    try:
        for inputs, targets in batches:
            taken = int(min(left, len(targets)))
            if taken:
                check_classes(targets)
                sums = sums or SumOfSquares(model, params, inputs)
                sums.add(inputs[:taken], targets[:taken], generator)
                left -= taken
    finally:
        model.train(was_training)
    if sums is None:
        raise DataError("curvature needs examples, and none were given; give training batches")
    mean = {name: value / sums.count for name, value in sums.total.items()}
    return {
        name: mean[name] if name in mean else torch.zeros_like(params[name])
        for name in floating(params)
    }


def on_sum_scale(fisher: Mapping[str, Tensor], examples: int) -> Params:
    """Return the curvature of the sum of a data set's losses, from that of their mean.

    Args:
        fisher: Diagonal curvature of the mean, as `diagonal_fisher` gives it.
        examples: Size of the data set that the model was trained on; not how many of it the
            curvature was taken on.

    Returns:
        The curvature, multiplied.

    Raises:
        MergingError: If the size is not positive.

    Example:
        >>> on_sum_scale({"w": torch.tensor([0.5])}, 200)
        {'w': tensor([100.])}
    """
    if examples <= 0:
        raise MergingError(f"the number of examples must be positive, not {examples}")
    return {name: value * examples for name, value in fisher.items()}


def check_classes(targets: Tensor) -> None:
    """Make sure that targets are class numbers.

    Raises:
        DataError: If they are not.
    """
    if targets.dim() != 1 or targets.is_floating_point():
        raise DataError(
            f"curvature needs class numbers [n] as targets, and these are {targets.dtype} "
            f"{list(targets.shape)}; give labelled examples"
        )
