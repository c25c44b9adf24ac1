"""The same answers by slower, plainer routes: loops, brute force, eager modules, least squares."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from merging.symmetry.spec import AxisExpression, PermutationSpec


def digits_of(expression: AxisExpression, position: int) -> dict[str, int]:
    """At which position of every named index set a position of an axis is."""
    if expression.kind == "concat":
        for part in expression.parts:
            if position < part.size:
                return digits_of(part, position)
            position -= part.size
    if expression.kind == "product":
        found: dict[str, int] = {}
        for part in reversed(expression.parts):
            position, digit = divmod(position, part.size)
            found |= digits_of(part, digit)
        return found
    return {} if expression.name is None else {expression.name: position}


def source_of(
    expression: AxisExpression,
    perms: Mapping[str, Tensor],
    position: int,
    above: Mapping[str, int] | None = None,
) -> int:
    """Where position `position` of a permuted axis comes from, digit by digit.

    `above` has the positions on other axes, for groups that are nested in what is there.
    """
    above = {**(above or {}), **digits_of(expression, position)}
    if expression.kind == "concat":
        start = 0
        for part in expression.parts:
            if position < start + part.size:
                return start + source_of(part, perms, position - start, above)
            start += part.size
    if expression.kind == "product":
        digits = []
        for part in reversed(expression.parts):
            position, digit = divmod(position, part.size)
            digits.append((part, digit))
        total = 0
        for part, digit in reversed(digits):
            total = total * part.size + source_of(part, perms, digit, above)
        return total
    perm = perms.get(expression.group) if expression.group else None
    if perm is not None and perm.dim() > 1:
        for parent in expression.within:
            perm = perm[above[parent]]
    return position if perm is None else int(perm[position])


def permuted(
    spec: PermutationSpec, perms: Mapping[str, Tensor], params: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """`permute`, entry by entry."""
    moved = {}
    for name, value in params.items():
        axes = spec.axes.get(name, ())
        entries = []
        for places in itertools.product(*(range(e.size) for e in axes)):
            found = [digits_of(e, i) for e, i in zip(axes, places, strict=True)]
            index = []
            for k, (e, i) in enumerate(zip(axes, places, strict=True)):
                others = {n: d for j, one in enumerate(found) if j != k for n, d in one.items()}
                index.append(source_of(e, perms, i, others))
            entries.append(value[tuple(index)])
        moved[name] = torch.stack(entries).reshape(value.shape) if axes else value.clone()
    return moved


def moving_permutations(sizes: Mapping[str, int | tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """Random permutations, none of them the identity; of nested groups, in no row."""
    generator = torch.Generator().manual_seed(seed)
    perms = {}
    for group, shape in sizes.items():
        *above, n = (shape,) if isinstance(shape, int) else shape
        rows = []
        for _ in range(math.prod(above)):
            perm = torch.arange(n)
            while torch.equal(perm, torch.arange(n)):
                perm = torch.randperm(n, generator=generator)
            rows.append(perm)
        perms[group] = torch.stack(rows).reshape(*above, n)
    return perms


def all_permutations(n: int) -> Iterator[Tensor]:
    """Every permutation of `n` units."""
    return (torch.tensor(order) for order in itertools.permutations(range(n)))


def outputs(model: nn.Module, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """What the module itself returns, without any graph."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        result = torch.func.functional_call(model, dict(params), (x,), tie_weights=False)
    model.train(was_training)
    assert isinstance(result, Tensor)
    return result


def in_float64(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with its floating tensors in float64."""
    return {k: v.double() if v.is_floating_point() else v for k, v in params.items()}


def relative_difference(a: Tensor, b: Tensor) -> float:
    """Largest difference relative to the largest entry."""
    return float((a - b).abs().max() / a.abs().max())


def partition(spec: PermutationSpec) -> set[frozenset[tuple[str, int]]]:
    """The groups as sets of (parameter, axis), whatever they are called."""
    return {frozenset(places) for places in spec.places().values()}


def best_assignment(similarity: Tensor) -> float:
    """The largest sum over all pairings, by trying them all."""
    rows = torch.arange(len(similarity))
    return max(float(similarity[rows, p].sum()) for p in all_permutations(len(similarity)))


def inner_product(
    spec: PermutationSpec,
    perms: Mapping[str, Tensor],
    params_a: Mapping[str, Tensor],
    params_b: Mapping[str, Tensor],
    names: Iterable[str],
) -> float:
    """`<A, pi(B)>` over some parameters, from the permuted model in full."""
    moved = permuted(spec, perms, params_b)
    return math.fsum(
        float((params_a[name].double() * moved[name].double()).sum()) for name in names
    )


def evaluation(
    model: nn.Module, points: Sequence[Mapping[str, Tensor]], batches: Iterable
) -> tuple[np.ndarray, np.ndarray]:
    """Losses `[points, examples]` and answers, point by point and example by example."""
    losses, answers = [], []
    for params in points:
        row, right = [], []
        for x, y in batches:
            for k in range(len(y)):
                logits = outputs(model, params, x[k : k + 1])
                row.append(float(F.cross_entropy(logits, y[k : k + 1])))
                right.append(int(logits.argmax(1)) == int(y[k]))
        losses.append(row)
        answers.append(right)
    return np.array(losses), np.array(answers)


def mix(corners: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> dict[str, Tensor]:
    """A weighted sum of state dicts; what is not floating comes from the first."""
    return {
        name: sum(w * c[name] for w, c in zip(weights, corners, strict=True))
        if value.is_floating_point()
        else value
        for name, value in corners[0].items()
    }


def flat(params: Mapping[str, Tensor]) -> np.ndarray:
    """All floating entries of a state dict in one float64 vector."""
    return np.concatenate([
        v.double().numpy().ravel() for v in params.values() if v.is_floating_point()
    ])


def distance_squared(params_a: Mapping[str, Tensor], params_b: Mapping[str, Tensor]) -> float:
    """Squared distance of two state dicts, entry by entry."""
    return float(((flat(params_a) - flat(params_b)) ** 2).sum())
