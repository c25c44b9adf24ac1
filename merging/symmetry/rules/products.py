"""Rules of products, norms and distances between tensors, beside `matmul`."""

from __future__ import annotations

from collections.abc import Mapping

from merging.symmetry.rules.call import Axes, OperatorCall, TensorAxes
from merging.symmetry.rules.expressions import Axis, product, split


def gate(call: OperatorCall) -> Axes:
    """Follow `glu`: the first half of an axis, times the sigmoid of the second."""
    axes = call.axes("self")
    dim = call["dim"] % len(axes)
    value, own = split(axes[dim], [axes[dim].size // 2] * 2, f"cut at {call.place}")
    call.same(value, own)
    return [*axes[:dim], value, *axes[dim + 1 :]]


def bilinear(call: OperatorCall) -> Axes:
    """Follow `x W y + b` for every output."""
    left, right, weight = call.axes("input1"), call.axes("input2"), call.axes("weight")
    call.same(left[-1], weight[1])
    call.same(right[-1], weight[2])
    if isinstance(call["bias"], TensorAxes):
        call.same(weight[0], call.axes("bias")[0])
    return [*call.broadcast([left[:-1], right[:-1]]), weight[0]]


def distances(call: OperatorCall) -> Axes:
    """Measure the distance of every row of one matrix to every row of another."""
    a, b = call.axes("x1"), call.axes("x2")
    call.same(a[-1], b[-1])
    return [*call.broadcast([a[:-2], b[:-2]]), a[-2], b[-2]]


def contracted(call: OperatorCall) -> Axes:
    """Follow `cosine_similarity`, `vecdot`: two tensors, summed up along one axis."""
    tensors = [tensor.axes for tensor in call.tensors()]
    axes = call.broadcast(tensors)
    dim = call["dim"] % len(axes)
    return [*axes[:dim], *axes[dim + 1 :]]


def pairwise_distance(call: OperatorCall) -> Axes:
    """Measure the distance of two tensors along their last axis."""
    axes = call.broadcast([tensor.axes for tensor in call.tensors()])
    return [*axes[:-1], Axis(1)] if call["keepdim"] else axes[:-1]


def outer(call: OperatorCall) -> Axes:
    """Multiply every element of one vector by every element of another."""
    a, b = (tensor.axes[0] for tensor in call.tensors())
    return [a, b]


def tensordot(call: OperatorCall) -> Axes:
    """Sum over pairs of axes."""
    a, b = call.axes("self"), call.axes("other")
    left = [dim % len(a) for dim in call["dims_self"]]
    right = [dim % len(b) for dim in call["dims_other"]]
    for i, j in zip(left, right, strict=True):
        call.same(a[i], b[j])
    return [
        *(axis for k, axis in enumerate(a) if k not in left),
        *(axis for k, axis in enumerate(b) if k not in right),
    ]


def kronecker(call: OperatorCall) -> Axes:
    """Follow a Kronecker product: every axis is `axis of the one x axis of the other`."""
    a, b = call.axes("self"), call.axes("other")
    rank = max(len(a), len(b))
    a, b = ([*[Axis(1)] * (rank - len(axes)), *axes] for axes in (a, b))
    return [product([x, y]) for x, y in zip(a, b, strict=True)]


def weight_norm(call: OperatorCall) -> Axes:
    """Follow a direction, normed over all axes but one, times a length for each place on that."""
    return call.broadcast([call.axes("v"), call.axes("g")])


RULES: Mapping[str, object] = {
    "glu": gate,
    "bilinear": bilinear,
    **dict.fromkeys(("cdist", "_cdist_forward"), distances),
    **dict.fromkeys(("cosine_similarity", "linalg_vecdot"), contracted),
    "pairwise_distance": pairwise_distance,
    **dict.fromkeys(("outer", "ger"), outer),
    "tensordot": tensordot,
    "kron": kronecker,
    "_weight_norm": weight_norm,
}
