"""Rules of the operators that rearrange, cut and join axes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from merging.models.graph.memory import is_written
from merging.symmetry.rules.call import Axes, OperatorCall, Rows, TensorAxes, dim_list
from merging.symmetry.rules.expressions import Axis, concat, product, split, uniform_axis
from merging.symmetry.rules.fused import cut_rows, read_by_position


def reshape(call: OperatorCall) -> Axes | list[TensorAxes]:
    """Follow `view`, `reshape`, `flatten`, `unflatten`: products are joined and split, row-major.

    An axis that comes of a split and is only read by position, as in fused queries, keys and
    values, has rows of its own.
    """
    runs = list(_runs(call))
    along = next(
        (k for _, dims in runs for k in dims[:-1] if read_by_position(call, k)),
        None,
    )
    rows: list[Axes] = [[] for _ in range(1 if along is None else call.shape[along])]
    for left, dims in runs:
        for row, part in zip(rows, _regroup(call, left, dims, along), strict=True):
            row.extend(part)
    if along is None:
        return _with_ones(call.shape, rows[0])
    others = (*call.shape[:along], *call.shape[along + 1 :])
    made: list[TensorAxes] = [Rows([_with_ones(others, row) for row in rows], along)]
    return made


def _runs(call: OperatorCall) -> Iterator[tuple[Axes, list[int]]]:
    """Match runs of the given axes with runs of the resulting dimensions.

    Yields:
        The shortest runs that are equally long.
    """
    axes = [axis for axis in next(call.tensors()).axes if axis.size != 1]
    dims = [k for k, size in enumerate(call.shape) if size != 1]
    while axes:
        left, right = [axes.pop(0)], [dims.pop(0)]
        while (total := math.prod(a.size for a in left)) != (
            wanted := math.prod(call.shape[k] for k in right)
        ):
            if total < wanted:
                left.append(axes.pop(0))
            else:
                right.append(dims.pop(0))
        yield left, right


def _regroup(call: OperatorCall, left: Axes, dims: list[int], along: int | None) -> list[Axes]:
    sizes = [call.shape[k] for k in dims]
    if along in dims:
        return cut_rows(call, product(left), sizes, dims.index(along))
    outputs = [product(left)] if len(dims) == 1 else [Axis(size) for size in sizes]
    if len(dims) > 1:
        call.same(product(left), product(outputs))
    return [outputs] * (1 if along is None else call.shape[along])


def _with_ones(shape: Sequence[int], axes: Axes) -> Axes:
    remaining = iter(axes)
    return [Axis(1) if size == 1 else next(remaining) for size in shape]


def permute(call: OperatorCall) -> Axes:
    """Put the axes in another order."""
    axes = call.axes("self")
    return [axes[dim] for dim in dim_list(call["dims"], len(axes))]


def transpose(call: OperatorCall) -> Axes:
    """Let two axes change places (`t` of a matrix included)."""
    axes = list(call.axes("self"))
    if len(axes) < 2:
        return axes
    given = [value for name, value in call.arguments.items() if name != "self"]
    a, b = given or (0, 1)
    axes[a], axes[b] = axes[b], axes[a]
    return axes


def last_transpose(call: OperatorCall) -> Axes:
    """Let the last two axes change places."""
    axes = call.axes("self")
    return [*axes[:-2], axes[-1], axes[-2]]


def move(call: OperatorCall) -> Axes:
    """Move some axes; the others keep their order around them."""
    axes = call.axes("self")
    sources = dim_list(call["source"], len(axes))
    targets = dim_list(call["destination"], len(axes))
    placed = dict(zip(targets, sources, strict=True))
    others = iter(k for k in range(len(axes)) if k not in sources)
    return [axes[placed[k] if k in placed else next(others)] for k in range(len(axes))]


def unsqueeze(call: OperatorCall) -> Axes:
    """Add an axis of size 1."""
    axes = list(call.axes("self"))
    axes.insert(call["dim"] % (len(axes) + 1), Axis(1))
    return axes


def squeeze(call: OperatorCall) -> Axes:
    """Drop axes of size 1."""
    axes = call.axes("self")
    dims = dim_list(call["dim"], len(axes))
    return [axis for k, axis in enumerate(axes) if axis.size != 1 or k not in dims]


def expand(call: OperatorCall) -> Axes:
    """Repeat axes of size 1: all copies are equal, so any order will do."""
    axes = call.axes("self")
    new = len(call.shape) - len(axes)
    kept = zip(axes, call.shape[new:], strict=True)
    repeated = Axis if is_written(call.node) else uniform_axis
    return [
        *(repeated(size) for size in call.shape[:new]),
        *(axis if axis.size == size else repeated(size) for axis, size in kept),
    ]


def repeat(call: OperatorCall) -> Axes:
    """Tile axes: `repeats x axis`."""
    axes = call.axes("self")
    padded = [Axis(1)] * (len(call.shape) - len(axes)) + list(axes)
    return [
        product([Axis(size // axis.size), axis])
        for axis, size in zip(padded, call.shape, strict=True)
    ]


def repeat_interleave(call: OperatorCall) -> Axes:
    """Repeat the elements of one axis: `axis x copies`, and the copies are equal."""
    axes = list(call.axes("self"))
    dim = call["dim"] % len(axes)
    axes[dim] = product([axes[dim], Axis(call.shape[dim] // axes[dim].size)])
    return axes


def stack_flat(call: OperatorCall) -> Axes:
    """Follow `hstack`, `vstack`: concatenation along axis 1 or 0 of tensors that have it.

    Raises:
        ValueError: For vectors, which become rows or are joined along their only axis.
    """
    rank = min(len(tensor.axes) for tensor in call.tensors())
    if rank < 2:
        raise ValueError("vectors are joined in another way")
    return _joined([tensor.axes for tensor in call.tensors()], call, int("h" in call.operator))


def cat(call: OperatorCall) -> Axes:
    """Concatenate along one axis; the others are the same."""
    tensors: list[Axes] = [tensor.axes for tensor in call["tensors"] if tensor.shape != (0,)]
    return _joined(tensors, call, (call["dim"] or 0) % len(tensors[0]))


def _joined(tensors: list[Axes], call: OperatorCall, dim: int) -> Axes:
    result = list(tensors[0])
    for axes in tensors[1:]:
        for k, axis in enumerate(axes):
            if k != dim:
                call.same(result[k], axis)
    result[dim] = concat([axes[dim] for axes in tensors])
    return result


def stack(call: OperatorCall) -> Axes:
    """Put tensors side by side along a new axis, which is read by position."""
    axes = call.broadcast([tensor.axes for tensor in call["tensors"]])
    dim = (call["dim"] or 0) % len(call.shape)
    return [*axes[:dim], call.fixed(call.shape[dim], "read by position"), *axes[dim:]]


def cut(call: OperatorCall) -> list[TensorAxes]:
    """Follow `split`, `chunk`, `unbind`: consecutive parts of one axis."""
    if (rows := _own_rows(call)) is not None and call.operator == "unbind":
        return [TensorAxes(row) for row in rows]
    axes = call.axes("self")
    dim = (call["dim"] or 0) % len(axes)
    if call.operator == "unbind":
        call.fix(axes[dim], "read by position")
        return [TensorAxes([*axes[:dim], *axes[dim + 1 :]]) for _ in call.shapes]
    parts = split(axes[dim], [shape[dim] for shape in call.shapes], f"cut at {call.place}")
    return [TensorAxes([*axes[:dim], part, *axes[dim + 1 :]]) for part in parts]


def select(call: OperatorCall) -> Axes:
    """Take one position of an axis."""
    if (rows := _own_rows(call)) is not None:
        return rows[call["index"]]
    axes = call.axes("self")
    dim = call["dim"] % len(axes)
    call.fix(axes[dim], "read by position")
    return [*axes[:dim], *axes[dim + 1 :]]


def _own_rows(call: OperatorCall) -> list[Axes] | None:
    """Return the index sets of single rows, where the call goes along the axis that has them."""
    given = call["self"]
    if isinstance(given, Rows) and (call["dim"] or 0) % len(given.shape) == given.dim:
        return given.rows
    return None


def cut_out(call: OperatorCall) -> Axes | list[Rows]:
    """Follow `slice`, `narrow`: a run of positions; with a step the axis keeps its order."""
    if (rows := _own_rows(call)) is not None and call.operator == "slice" and 0 not in call.shape:
        taken = rows[slice(call["start"], call["end"], call["step"] or 1)]
        return [Rows(taken, call["self"].dim)]
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


def pad(call: OperatorCall) -> Axes:
    """Pad: what is added is constant and keeps its place; what was there may still be permuted."""
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


def pool(call: OperatorCall) -> Axes | list[TensorAxes]:
    """Follow pooling and resampling: channels by themselves, spatial positions fixed."""
    name = "self" if "self" in call.arguments else "input"
    axes = call.axes(name)
    spatial = int(next(digit for digit in call.operator if digit.isdigit()))
    for axis in axes[-spatial:]:
        call.fix(axis, "spatial position")
    new = [call.fixed(size, "spatial position") for size in call.shape[-spatial:]]
    result = [*axes[:-spatial], *new]
    return [TensorAxes(result) for _ in call.shapes] if len(call.shapes) > 1 else result


_NEAREST_EXACT = "_upsample_nearest_exact"

RULES: Mapping[str, object] = {
    **dict.fromkeys(
        ("view", "view_as", "reshape", "reshape_as", "_unsafe_view", "flatten", "unflatten"),
        reshape,
    ),
    "permute": permute,
    **dict.fromkeys(("transpose", "t", "swapaxes", "swapdims", "numpy_T"), transpose),
    **dict.fromkeys(("mT", "mH", "adjoint"), last_transpose),
    **dict.fromkeys(("movedim", "moveaxis"), move),
    "unsqueeze": unsqueeze,
    "squeeze": squeeze,
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), expand),
    **dict.fromkeys(("repeat", "tile"), repeat),
    "repeat_interleave": repeat_interleave,
    **dict.fromkeys(("cat", "concat", "concatenate"), cat),
    **dict.fromkeys(("hstack", "vstack"), stack_flat),
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
        + [f"max_pool{d}d_with_indices" for d in (1, 2, 3)]
        + [f"{kind}{d}d" for d in (1, 2, 3) for kind in ("upsample_nearest", _NEAREST_EXACT)]
        + ["upsample_linear1d", "upsample_trilinear3d"]
        + [
            name
            for kind in ("bilinear", "bicubic")
            for name in (f"upsample_{kind}2d", f"_upsample_{kind}2d_aa")
        ],
        pool,
    ),
}
