"""Why a merged model is not the joint one: mismatch of gradients (Daheim et al. 2024, §3).

The joint model θ* of Eq. 9 and the fine-tuned models θ_t of Eq. 8 are stationary points, so what
lies between θ* and a merge is how much gradients change between θ_t and θ* (Eq. 6 and 10). Losses
are sums over examples, as in the paper; all curvatures are diagonals on that scale.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from merging.files.checkpoints.lazy_params import Params, StateDict
from merging.files.data.batches import BatchesLike
from merging.models.state_dict import floating
from merging.schema.errors import DataError, MergingError


@dataclass(frozen=True)
class Mismatch:
    """How much gradients of the tasks differ between a merged model and the models it is made of.

    Attributes:
        norm: Euclidean length of the weighted sum over tasks.
        by_tensor: The same within each tensor.
    """

    norm: float
    by_tensor: Mapping[str, float]


@dataclass(frozen=True)
class TensorError:
    """How far a merge is from the joint model within one tensor: all are Euclidean lengths.

    Attributes:
        measured: Of joint - merge.
        predicted: Of the term of Eq. 10, exact where all models are stationary points.
        residual: Of what models add that are none: early stopping, and a penalty that was not
            there. Measured is the length of the sum of both terms.
        bound: Sum of the lengths of each task's part of the term, and of the residual; the
            triangle inequality makes it no smaller than `measured`.
    """

    measured: float
    predicted: float
    residual: float
    bound: float


def loss_gradient(model: nn.Module, params: StateDict, batches: BatchesLike) -> Params:
    """Return the gradient of the sum of cross-entropies over all examples.

    Args:
        model: The architecture; evaluated, whatever mode it is in.
        params: State dict.
        batches: Any re-iterable of `(inputs, class numbers)`.

    Returns:
        One tensor per parameter; buffers have none.

    Raises:
        DataError: If there are no examples.
    """
    trained = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    leaves = {
        name: params[name].detach().clone().requires_grad_()
        for name in floating(params)
        if name in trained
    }
    total = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    count, was_training = 0, model.training
    model.eval()
    try:
        for x, y in batches:
            outputs = functional_call(model, {**params, **leaves}, (x,), tie_weights=False)
            loss = F.cross_entropy(outputs, y, reduction="sum")
            found = torch.autograd.grad(loss, list(leaves.values()))
            for name, gradient in zip(leaves, found, strict=True):
                total[name] += gradient
            count += len(y)
    finally:
        model.train(was_training)
    if not count:
        raise DataError("gradients need examples, and none were given; give training batches")
    return total


def gradient_mismatch(
    at_merged: Sequence[StateDict],
    at_models: Sequence[StateDict],
    weights: Sequence[float] | None = None,
) -> Mismatch:
    """Return the length of `sum_t a_t (grad l_t(merged) - grad l_t(theta_t))` (Eq. 10, Fig. 1).

    Args:
        at_merged: Gradient of each task's loss at the merged model (`loss_gradient`).
        at_models: Gradient of each task's loss at the model that was fine-tuned on it.
        weights: `a_t` of the *target*, the joint loss: 1 for each task, unless given. They stay as
            they are while one tries scales of a rule.

    Returns:
        The length in all and by tensor.

    Raises:
        MergingError: If the numbers of gradients and weights differ.

    Example:
        >>> one, other = {"w": torch.tensor([3.0, 4.0])}, {"w": torch.zeros(2)}
        >>> gradient_mismatch([one], [other]).norm
        5.0
    """
    factors = _factors(weights, at_merged, at_models)
    by_tensor = {}
    for name in at_merged[0]:
        parts = zip(factors, at_merged, at_models, strict=True)
        terms = [a * (merged[name].double() - own[name].double()) for a, merged, own in parts]
        by_tensor[name] = float(torch.stack(terms).sum(0).norm())
    return Mismatch(_length(by_tensor.values()), by_tensor)


def decompose_error(
    *,
    base: StateDict,
    models: Sequence[StateDict],
    joint: StateDict,
    base_curvature: StateDict,
    at_joint: Sequence[StateDict],
    at_models: Sequence[StateDict],
    weights: Sequence[float] | None = None,
    curvatures: Sequence[StateDict] | None = None,
    delta: float = 1e-12,
) -> dict[str, TensorError]:
    """Split the distance between the joint model and a merge into what causes it (Eq. 10).

    For any diagonals `C_t`, the merge `base + sum_t a_t (H_0 + C_t) / (H_0 + sum_s a_s C_s)
    (theta_t - base)` differs from the joint model by

        - (H_0 + sum_t a_t C_t)^-1 sum_t a_t [grad l_t(joint) - grad l_t(theta_t)
                                               - C_t (joint - theta_t)]

    if all are stationary points. With `C_t = 0` the merge is task arithmetic and this is Eq. 10;
    with `C_t = H_t` it is gradient matching (Eq. 12), and the bracket is what Taylor's expansion
    (Eq. 11) leaves out. Models that are not stationary points add a residual, so that both terms
    together always are the difference.

    Args:
        base: The base model.
        models: The models fine-tuned from it.
        joint: The joint model.
        base_curvature: `H_0` without `delta`.
        at_joint: Gradient of each task's loss at the joint model.
        at_models: Gradient of each task's loss at its own model.
        weights: `a_t`; 1 for each, unless given.
        curvatures: `C_t`; zeros, unless given.
        delta: The prior's precision, added to `base_curvature`.

    Returns:
        By tensor, for all that gradients are given for.

    Raises:
        MergingError: If the numbers of models, gradients and weights differ.
    """
    factors = _factors(weights, models, at_joint, at_models, curvatures or models)
    found = {}
    for name in at_joint[0]:
        h0 = base_curvature[name].double() + delta
        start, end = base[name].double(), joint[name].double()
        own = [model[name].double() for model in models]
        curved = [
            torch.zeros_like(h0) if curvatures is None else curvatures[k][name].double()
            for k in range(len(own))
        ]
        total = h0 + _sum(a * c for a, c in zip(factors, curved, strict=True))
        changes = [
            at[name].double() - before[name].double() - c * (end - theta)
            for at, before, c, theta in zip(at_joint, at_models, curved, own, strict=True)
        ]
        parts = [-a * change / total for a, change in zip(factors, changes, strict=True)]
        steps = zip(factors, curved, own, strict=True)
        merge = start + _sum(a * (h0 + c) / total * (theta - start) for a, c, theta in steps)
        measured, predicted = end - merge, _sum(parts)
        rest = float((measured - predicted).norm())
        found[name] = TensorError(
            measured=float(measured.norm()),
            predicted=float(predicted.norm()),
            residual=rest,
            bound=sum(float(part.norm()) for part in parts) + rest,
        )
    return found


def _factors(weights: Sequence[float] | None, *lists: Sequence[StateDict]) -> list[float]:
    lengths = {len(values) for values in lists}
    factors = [1.0] * len(lists[0]) if weights is None else [float(weight) for weight in weights]
    if lengths != {len(factors)} or not factors:
        raise MergingError(
            f"got {' and '.join(str(len(values)) for values in lists)} state dicts and "
            f"{len(factors)} weights; give one of each per task"
        )
    return factors


def _sum(terms: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum(0)


def _length(lengths: Iterable[float]) -> float:
    return sum(length * length for length in lengths) ** 0.5
