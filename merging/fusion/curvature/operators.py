"""Curvature that is more than its diagonal, as what it makes of a step; by curvlinops.

Two kinds: one Kronecker product for every linear layer and convolution (Martens and Grosse 2015,
K-FAC), and the whole generalized Gauss-Newton matrix, which is the Hessian where the loss is convex
in the parameters. Neither is ever written down: a curvature is a function that multiplies.
"""

from __future__ import annotations

import copy
import importlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from merging.files.checkpoints.lazy_params import Params
from merging.files.data.batches import BatchesLike
from merging.fusion.curvature.diagonal_fisher import check_classes, diagonal_fisher
from merging.schema.errors import DataError, MergingError

Operator = Callable[[Mapping[str, Tensor]], Params]


def kronecker_curvature(
    model: nn.Module,
    params: Mapping[str, Tensor],
    batches: BatchesLike,
    *,
    examples: int | None = None,
    seed: int = 0,
) -> Operator:
    """Return a curvature of one Kronecker product per layer (K-FAC), and a diagonal for the rest.

    Of a linear layer that reads `x` and is asked for `g`, the block of weight and bias is
    `mean(g g^T) ⊗ mean(x x^T)`, with the expectation over labels taken exactly. Layers that are
    used more than once or not at all by themselves (the projections inside of attention),
    convolutions in groups, norms and embeddings have the diagonal of `diagonal_fisher` in its
    place.

    Args:
        model: The architecture.
        params: State dict.
        batches: Any re-iterable of `(inputs, class numbers)`; training data.
        examples: Examples to take at most; all by default.
        seed: Of the labels that are drawn for the diagonal.

    Returns:
        The curvature of the *mean* of the losses: a function from a step, float64 by the names of
        the parameters, to its product. Multiply it by the size of the data set with
        `scaled_curvature`.

    Raises:
        MergingError: If curvlinops is not installed.
        DataError: If there are no examples, or their targets are not class numbers.
    """
    library = _curvlinops()
    data, count = _taken(batches, examples)
    own = _double(model, params)
    named = dict(own.named_parameters())
    blocks = _plain_layers(own, data[0][0])
    inside = {n: p for n, p in named.items() if n.rpartition(".")[0] in blocks}
    rest = [name for name in named if name not in inside]
    by_layer: Operator | None = None
    if inside:
        by_layer = _operator(
            library.KFACLinearOperator, own, inside, data, count,
            fisher_type="type-2", separate_weight_and_bias=False,
        )  # fmt: skip
    fisher = diagonal_fisher(own, own.state_dict(), data, seed=seed) if rest else {}

    def times(step: Mapping[str, Tensor]) -> Params:
        found = {} if by_layer is None else by_layer(step)
        return {n: found[n] if n in found else fisher[n] * step[n] for n in named}

    return times


def gauss_newton_curvature(
    model: nn.Module,
    params: Mapping[str, Tensor],
    batches: BatchesLike,
    *,
    examples: int | None = None,
) -> Operator:
    """Return the whole generalized Gauss-Newton matrix; each product passes over all examples.

    Args:
        model: The architecture.
        params: State dict.
        batches: Any re-iterable of `(inputs, class numbers)`; training data.
        examples: Examples to take at most; all by default.

    Returns:
        The curvature of the *mean* of the losses, as `kronecker_curvature` gives it.

    Raises:
        MergingError: If curvlinops is not installed.
        DataError: If there are no examples, or their targets are not class numbers.
    """
    library = _curvlinops()
    data, count = _taken(batches, examples)
    own = _double(model, params)
    named = dict(own.named_parameters())
    return _operator(library.GGNLinearOperator, own, named, data, count)


def diagonal_curvature(fisher: Mapping[str, Tensor]) -> Operator:
    """Return a diagonal as a curvature that multiplies.

    Example:
        >>> times = diagonal_curvature({"w": torch.tensor([1.0, 2.0])})
        >>> times({"w": torch.ones(2)})
        {'w': tensor([1., 2.])}
    """
    return lambda step: {n: fisher[n].to(value) * value for n, value in step.items() if n in fisher}


def scaled_curvature(curvature: Operator, factor: float) -> Operator:
    """Return a curvature times a number: of the sum of losses, from that of their mean.

    Args:
        curvature: The curvature.
        factor: Size of the data set that the model was trained on.

    Returns:
        The curvature, multiplied.

    Raises:
        MergingError: If the number is not positive.
    """
    if not factor > 0:
        raise MergingError(f"the factor of a curvature must be positive, not {factor}")
    return lambda step: {name: factor * value for name, value in curvature(step).items()}


def _operator(
    kind: Callable[..., Any],
    model: nn.Module,
    named: Mapping[str, nn.Parameter],
    data: list[tuple[Tensor, Tensor]],
    count: int,
    **options: object,
) -> Operator:
    loss = nn.CrossEntropyLoss(reduction="sum")
    matrix = kind(
        model, loss, list(named.values()), data, check_deterministic=False, num_data=count,
        **options,
    )  # fmt: skip

    def times(step: Mapping[str, Tensor]) -> Params:
        with _quiet():
            product = matrix @ [step[name] for name in named]
        return {n: value.detach() / count for n, value in zip(named, product, strict=True)}

    return times


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to itself what packages use of PyTorch that is deprecated.

    Yields:
        Nothing.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def _curvlinops() -> ModuleType:
    try:
        with _quiet():
            return importlib.import_module("curvlinops")
    except ImportError as error:
        raise MergingError(
            "curvature beyond the diagonal needs curvlinops, which is not installed; "
            "pip install --no-deps -r requirements-curvature.txt"
        ) from error


def _taken(batches: BatchesLike, examples: int | None) -> tuple[list[tuple[Tensor, Tensor]], int]:
    """Return the first examples, inputs in float64, and how many there are.

    Raises:
        DataError: If there are none.
    """
    found, left = [], float("inf") if examples is None else examples
    for inputs, targets in batches:
        taken = int(min(left, len(targets)))
        if taken:
            check_classes(targets)
            wide = inputs.double() if inputs.is_floating_point() else inputs
            found.append((wide[:taken], targets[:taken]))
            left -= taken
    if not found:
        raise DataError("curvature needs examples, and none were given; give training batches")
    return found, sum(len(targets) for _, targets in found)


def _double(model: nn.Module, params: Mapping[str, Tensor]) -> nn.Module:
    own = copy.deepcopy(model).double().eval()
    own.load_state_dict(dict(params))
    return own.requires_grad_(requires_grad=True)


def _plain_layers(model: nn.Module, inputs: Tensor) -> set[str]:
    """Return the names of linear layers and plain convolutions that are called once per input."""
    calls: Counter[str] = Counter()
    owners = Counter(id(p) for m in model.modules() for p in m.parameters(recurse=False))

    def counts(name: str) -> Callable[..., None]:
        return lambda *_: calls.update([name])

    plain = [
        (name, module)
        for name, module in model.named_modules()
        if (isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1))
        and all(owners[id(p)] == 1 for p in module.parameters())
    ]
    handles = [module.register_forward_hook(counts(name)) for name, module in plain]
    with torch.no_grad():
        model(inputs[:1])
    for handle in handles:
        handle.remove()
    return {name for name, _ in plain if calls[name] == 1}
