"""Dicts of tensors as points of a vector space.

A model's parameters are a mapping from name to tensor, as `model.state_dict()` gives it, buffers
included. Arithmetic acts on the floating tensors; every other tensor (a counter, an index table,
a mask) has no meaningful mean and is carried over from one of the inputs, so that a result always
has all the names a model needs. Results are new tensors; nothing writes into its inputs.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from merging.files.checkpoints.lazy_params import Params
from merging.files.checkpoints.limits import first_few
from merging.schema.errors import ArchitectureMismatchError


def lerp(params_a: Mapping[str, Tensor], params_b: Mapping[str, Tensor], lam: float) -> Params:
    """Go from model A to model B along a straight line: `(1 - lam) * A + lam * B`.

    Args:
        params_a: Model A, reached exactly (bit for bit) at `lam = 0`.
        params_b: Model B, reached exactly at `lam = 1`; same names, shapes and dtypes.
        lam: Where on the line; values outside [0, 1] extrapolate.

    Returns:
        New tensors in the dtypes of the inputs. Tensors that are not floating are those of
        model A, and at `lam = 1` those of model B.

    Example:
        >>> lerp({"w": torch.tensor([0.0])}, {"w": torch.tensor([4.0])}, 0.25)
        {'w': tensor([1.])}
    """
    return combine((params_a, params_b), (1 - lam, lam))


def combine(corners: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> Params:
    """Add up models, each multiplied by its weight.

    A corner of weight 0 is left out, not multiplied, so an infinity or NaN in it does no harm;
    a lone corner of weight 1 comes back bit for bit.

    Args:
        corners: One or more models with the same names, shapes and dtypes.
        weights: One number per corner; any sign, any sum.

    Returns:
        New tensors in the dtypes of the inputs. Tensors that are not floating are those of the
        first corner whose weight is not 0 (of the first corner, if all weights are 0).

    Raises:
        ValueError: If there is no corner, or not one weight per corner.

    Example:
        >>> combine([{"w": torch.tensor([1.0])}, {"w": torch.tensor([10.0])}], [2, 0.5])
        {'w': tensor([7.])}
    """
    if not corners or len(corners) != len(weights):
        raise ValueError(
            f"got {len(corners)} corners and {len(weights)} weights; expected one or more corners "
            "and a weight for each"
        )
    for corner in corners[1:]:
        check_same_architecture(corners[0], corner)
    terms = [(c, float(w)) for c, w in zip(corners, weights, strict=True) if w != 0]
    terms = terms or [(corners[0], 0.0)]
    return {name: _weighted_sum([(c[name], w) for c, w in terms]) for name in corners[0]}


def subtract(params_a: Mapping[str, Tensor], params_b: Mapping[str, Tensor]) -> Params:
    """Return the step that leads from model B to model A: `A - B`.

    Args:
        params_a: Where the step ends; its tensors that are not floating are carried over.
        params_b: Where the step starts; same names, shapes and dtypes.

    Returns:
        New tensors in the dtypes of the inputs.

    Example:
        >>> subtract({"w": torch.tensor([3.0])}, {"w": torch.tensor([1.0])})
        {'w': tensor([2.])}
    """
    return combine((params_a, params_b), (1.0, -1.0))


def scale(params: Mapping[str, Tensor], factor: float) -> Params:
    """Multiply every floating tensor by `factor` (0 gives zeros) and carry the others over.

    Example:
        >>> scale({"w": torch.tensor([3.0]), "steps": torch.tensor(7)}, 2)
        {'w': tensor([6.]), 'steps': tensor(7)}
    """
    return combine((params,), (factor,))


def dot(params_a: Mapping[str, Tensor], params_b: Mapping[str, Tensor]) -> float:
    """Return the inner product over all floating tensors, accumulated in float64.

    Args:
        params_a: Any floating dtypes, any device.
        params_b: The same names and shapes; dtypes may differ from those of `params_a`.

    Returns:
        The sum of products of matching entries.

    Example:
        >>> dot({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 4.0])})
        11.0
    """
    check_same_architecture(params_a, params_b, dtype=False)
    return _total(_flat64(params_a[n]).dot(_flat64(params_b[n])) for n in floating(params_a))


def norm(params: Mapping[str, Tensor]) -> float:
    """Return the Euclidean length over all floating tensors, accumulated in float64.

    Example:
        >>> norm({"w": torch.tensor([3.0]), "b": torch.tensor([4.0])})
        5.0
    """
    return dot(params, params) ** 0.5


def distance(params_a: Mapping[str, Tensor], params_b: Mapping[str, Tensor]) -> float:
    """Return the Euclidean distance of two models; differences and sums are float64.

    Args:
        params_a: Any floating dtypes, any device.
        params_b: The same names and shapes; dtypes may differ from those of `params_a`.

    Returns:
        The length of `A - B`, without rounding it to the dtype of the tensors first.

    Example:
        >>> distance({"w": torch.tensor([1.0, 1.0])}, {"w": torch.tensor([4.0, 5.0])})
        5.0
    """
    check_same_architecture(params_a, params_b, dtype=False)
    differences = (_flat64(params_a[n]) - _flat64(params_b[n]) for n in floating(params_a))
    return _total(d.dot(d) for d in differences) ** 0.5


def floating(params: Mapping[str, Tensor]) -> list[str]:
    """List the names of the floating tensors, in the order of the mapping.

    Example:
        >>> floating({"w": torch.zeros(2), "steps": torch.tensor(7)})
        ['w']
    """
    return [name for name, tensor in params.items() if tensor.is_floating_point()]


def check_same_architecture(
    params_a: Mapping[str, Tensor], params_b: Mapping[str, Tensor], *, dtype: bool = True
) -> None:
    """Make sure that two models have the same tensor names, shapes and, if asked, dtypes.

    The order of the names does not matter.

    Args:
        params_a: Model A.
        params_b: Model B.
        dtype: Whether dtypes must agree too.

    Raises:
        ArchitectureMismatchError: If they differ; the message names the tensors.

    Example:
        >>> check_same_architecture({"w": torch.zeros(2)}, {"w": torch.ones(2)})
    """
    problem = _differing_names(params_a, params_b) or _differing_shapes(params_a, params_b)
    if not problem and dtype:
        problem = _differing_dtypes(params_a, params_b)
    if problem:
        raise ArchitectureMismatchError(problem)


def _differing_names(params_a: Mapping[str, Tensor], params_b: Mapping[str, Tensor]) -> str | None:
    missing = [repr(name) for name in params_a if name not in params_b]
    extra = [repr(name) for name in params_b if name not in params_a]
    found = [f"model B lacks {first_few(missing)}"] if missing else []
    found += [f"model B has, and model A lacks, {first_few(extra)}"] if extra else []
    if not found:
        return None
    return (
        f"the two models are not of one architecture: {'; '.join(found)}. "
        "Choose two checkpoints of the same architecture"
    )


def _differing_shapes(params_a: Mapping[str, Tensor], params_b: Mapping[str, Tensor]) -> str | None:
    found = [
        f"{name!r} is {list(a.shape)} in model A and {list(params_b[name].shape)} in model B"
        for name, a in params_a.items()
        if a.shape != params_b[name].shape
    ]
    if not found:
        return None
    return (
        f"the shapes of the two models differ: {first_few(found)}. "
        "Choose two checkpoints of the same architecture and widths"
    )


def _differing_dtypes(params_a: Mapping[str, Tensor], params_b: Mapping[str, Tensor]) -> str | None:
    found = [
        f"{name!r} is {a.dtype} in model A and {params_b[name].dtype} in model B"
        for name, a in params_a.items()
        if a.dtype != params_b[name].dtype
    ]
    if not found:
        return None
    return (
        f"the dtypes of the two models differ: {first_few(found)}. "
        "Convert one model to the dtypes of the other"
    )


def _weighted_sum(terms: Sequence[tuple[Tensor, float]]) -> Tensor:
    (first, weight), *others = terms
    if not first.is_floating_point() or (weight == 1 and not others):
        return first.clone()
    if weight == 0:
        return torch.zeros_like(first)
    wide = torch.promote_types(first.dtype, torch.float32)  # half precision is rounded once
    total = first.to(wide) * weight
    for tensor, factor in others:
        total = total.add(tensor.to(wide), alpha=factor)
    return total.to(first.dtype)


def _flat64(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.float64).flatten()


def _total(sums: Iterable[Tensor]) -> float:
    return float(sum(sums, start=torch.zeros((), dtype=torch.float64)))


def in_order(params: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> Params:
    """Put the names of a state dict into the order of another: files have an order of their own.

    Args:
        params: The state dict.
        like: A state dict of the same architecture.

    Returns:
        The same tensors, in the other's order.

    Raises:
        ArchitectureMismatchError: If names or shapes differ.
    """
    check_same_architecture(like, params, dtype=False)
    return {name: params[name] for name in like}
