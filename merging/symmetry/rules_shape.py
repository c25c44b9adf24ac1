"""Rules of the operators that rearrange, cut and join axes."""

from __future__ import annotations

import math
from collections.abc import Mapping

from merging.symmetry.call import Axes, Call, TensorAxes, dim_list
from merging.symmetry.expressions import Axis, concat, product, split


def reshape(call: Call) -> Axes:
    """`view`, `reshape`, `flatten`, `unflatten`: products are joined and split, row-major."""
    axes = [axis for axis in next(call.tensors()).axes if axis.size != 1]
    sizes = [size for size in call.shape if size != 1]
    result: Axes = []
    while axes:
        left, right = [axes.pop(0)], [sizes.pop(0)]
        while (total := math.prod(a.size for a in left)) != (wanted := math.prod(right)):
            if total < wanted:
                left.append(axes.pop(0))
            else:
                right.append(sizes.pop(0))
        result.extend(_regroup(call, left, right))
    remaining = iter(result)
    return [Axis(1) if size == 1 else next(remaining) for size in call.shape]


def _regroup(call: Call, left: Axes, right: list[int]) -> Axes:
    if len(right) == 1:
        return [product(left)]
    outputs = [Axis(size) for size in right]
    call.same(product(left), product(outputs))
    return outputs


def permute(call: Call) -> Axes:
    """Axes in another order."""
    axes = call.axes("self")
    return [axes[dim] for dim in dim_list(call["dims"], len(axes))]


def transpose(call: Call) -> Axes:
    """Two axes change places (`t` of a matrix included)."""
    axes = list(call.axes("self"))
    if len(axes) < 2:
        return axes
    a, b = (call["dim0"], call["dim1"]) if "dim0" in call.arguments else (0, 1)
    axes[a], axes[b] = axes[b], axes[a]
    return axes


def unsqueeze(call: Call) -> Axes:
    """A new axis of size 1."""
    axes = list(call.axes("self"))
    axes.insert(call["dim"] % (len(axes) + 1), Axis(1))
    return axes


def squeeze(call: Call) -> Axes:
    """Axes of size 1 go."""
    axes = call.axes("self")
    dims = dim_list(call["dim"], len(axes))
    return [axis for k, axis in enumerate(axes) if axis.size != 1 or k not in dims]


def expand(call: Call) -> Axes:
    """Axes of size 1 are repeated: all copies are equal, so any order will do."""
    axes = call.axes("self")
    new = len(call.shape) - len(axes)
    kept = zip(axes, call.shape[new:], strict=True)
    return [
        *(Axis(size) for size in call.shape[:new]),
        *(axis if axis.size == size else Axis(size) for axis, size in kept),
    ]


def repeat(call: Call) -> Axes:
    """Axes are tiled: `repeats x axis`."""
    axes = call.axes("self")
    padded = [Axis(1)] * (len(call.shape) - len(axes)) + list(axes)
    return [
        product([Axis(size // axis.size), axis])
        for axis, size in zip(padded, call.shape, strict=True)
    ]


def cat(call: Call) -> Axes:
    """Concatenation along one axis; the others are the same."""
    tensors: list[Axes] = [tensor.axes for tensor in call["tensors"] if tensor.shape != (0,)]
    dim = (call["dim"] or 0) % len(tensors[0])
    result = list(tensors[0])
    for axes in tensors[1:]:
        for k, axis in enumerate(axes):
            if k != dim:
                call.same(result[k], axis)
    result[dim] = concat([axes[dim] for axes in tensors])
    return result


def stack(call: Call) -> Axes:
    """Tensors side by side along a new axis, which is read by position."""
    axes = call.broadcast([tensor.axes for tensor in call["tensors"]])
    dim = (call["dim"] or 0) % len(call.shape)
    return [*axes[:dim], call.fixed(call.shape[dim], "read by position"), *axes[dim:]]


def cut(call: Call) -> list[TensorAxes]:
    """`split`, `chunk`, `unbind`: consecutive parts of one axis."""
    axes = call.axes("self")
    dim = (call["dim"] or 0) % len(axes)
    if call.operator == "unbind":
        call.fix(axes[dim], "read by position")
        return [TensorAxes([*axes[:dim], *axes[dim + 1 :]]) for _ in call.shapes]
    parts = split(axes[dim], [shape[dim] for shape in call.shapes], f"cut at {call.place}")
    return [TensorAxes([*axes[:dim], part, *axes[dim + 1 :]]) for part in parts]


def select(call: Call) -> Axes:
    """One position of an axis."""
    axes = call.axes("self")
    dim = call["dim"] % len(axes)
    call.fix(axes[dim], "read by position")
    return [*axes[:dim], *axes[dim + 1 :]]


def cut_out(call: Call) -> Axes:
    """`slice`, `narrow`: a run of positions; with a step the axis keeps its order."""
    axes = list(call.axes("self"))
    dim = (call["dim"] or 0) % len(axes)
    axis, length = axes[dim], call.shape[dim]
    if length == axis.size:
        return axes
    start = min(max(_wrapped(call["start"] or 0, axis.size), 0), axis.size)
    if (call["step"] or 1) != 1:
        call.fix(axis, "read by position")
        axes[dim] = call.fixed(length, "read by position")
    else:
        sizes = [start, length, axis.size - start - length]
        axes[dim] = split(axis, sizes, f"cut at {call.place}")[1]
    return axes


def _wrapped(index: int, size: int) -> int:
    return index + size if index < 0 else index


def pad(call: Call) -> Axes:
    """What is added is constant and keeps its place; what was there may still be permuted."""
    axes = list(call.axes("self"))
    amounts = list(call["pad"])
    constant = call.operator == "constant_pad_nd" or call["mode"] in (None, "constant")
    for k in range(len(amounts) // 2):
        before, after = amounts[2 * k : 2 * k + 2]
        dim = len(axes) - 1 - k
        if before < 0 or after < 0 or not constant:
            call.fix(axes[dim], "padded by position")
            axes[dim] = call.fixed(call.shape[dim], "padded by position")
        elif before or after:
            ends = [call.fixed(size, "padding") for size in (before, after)]
            axes[dim] = concat([ends[0], axes[dim], ends[1]])
    return axes


def pool(call: Call) -> Axes | list[TensorAxes]:
    """Pooling and resampling: channels by themselves, spatial positions fixed."""
    name = "self" if "self" in call.arguments else "input"
    axes = call.axes(name)
    spatial = int(next(digit for digit in call.operator if digit.isdigit()))
    for axis in axes[-spatial:]:
        call.fix(axis, "spatial position")
    new = [call.fixed(size, "spatial position") for size in call.shape[-spatial:]]
    result = [*axes[:-spatial], *new]
    return [TensorAxes(result) for _ in call.shapes] if len(call.shapes) > 1 else result


RULES: Mapping[str, object] = {
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "flatten", "unflatten"), reshape),
    "permute": permute,
    **dict.fromkeys(("transpose", "t", "swapaxes", "numpy_T"), transpose),
    "unsqueeze": unsqueeze,
    "squeeze": squeeze,
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), expand),
    "repeat": repeat,
    **dict.fromkeys(("cat", "concat"), cat),
    "stack": stack,
    **dict.fromkeys(("split", "split_with_sizes", "chunk", "unbind", "tensor_split"), cut),
    "select": select,
    **dict.fromkeys(("slice", "narrow"), cut_out),
    **dict.fromkeys(("pad", "constant_pad_nd"), pad),
    **dict.fromkeys(
        [
            f"{kind}_pool{d}d"
            for d in (1, 2, 3)
            for kind in ("avg", "max", "adaptive_avg", "adaptive_max")
        ]
        + [f"max_pool{d}d_with_indices" for d in (2, 3)]
        + ["upsample_nearest1d", "upsample_nearest2d", "upsample_bilinear2d"],
        pool,
    ),
}
