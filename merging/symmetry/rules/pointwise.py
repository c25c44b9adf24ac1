"""Rules of operators that act on every element, or treat all elements of an axis alike."""

from __future__ import annotations

from collections.abc import Mapping

from merging.models.graph.memory import is_written
from merging.symmetry.rules.call import Axes, OperatorCall, TensorAxes, dim_list
from merging.symmetry.rules.expressions import Axis, uniform_axis


def pointwise(call: OperatorCall) -> Axes:
    """Treat every element by itself, with broadcasting."""
    return call.broadcast([tensor.axes for tensor in call.tensors()])


def first_pointwise(call: OperatorCall) -> Axes:
    """Treat every element of the first tensor by itself (or forget it); others only lend a type."""
    return next(call.tensors()).axes


def reduce(call: OperatorCall) -> Axes | list[TensorAxes]:
    """Follow a symmetric function of all elements along axes (mean, sum, largest, variance)."""
    if len(call.shapes) > 1:
        return [TensorAxes(_reduced(call)) for _ in call.shapes]
    return _reduced(call)


def _reduced(call: OperatorCall) -> Axes:
    axes = call.axes(_input(call))
    gone = dim_list(call["dim"], len(axes))
    if call["keepdim"]:
        return [Axis(1) if k in gone else axis for k, axis in enumerate(axes)]
    return [axis for k, axis in enumerate(axes) if k not in gone]


def equivariant(call: OperatorCall) -> Axes:
    """Follow a function along an axis that goes with any reordering of it (softmax)."""
    axes = call.axes(_input(call))
    for dim in dim_list(call["dim"], len(axes)):
        call.inner.append([*axes[:dim], *axes[dim + 1 :]])
    return axes


def fix_along(call: OperatorCall) -> Axes:
    """Follow a function that reads an axis by position (cumulative sums, flips, rolls)."""
    axes = call.axes(_input(call))
    for dim in dim_list(call["dim"] if call["dim"] is not None else call["dims"], len(axes)):
        call.fix(axes[dim], "read by position")
    return axes


def uniform(call: OperatorCall) -> Axes:
    """Make a tensor whose elements are all equal: any reordering leaves it as it is."""
    return [Axis(size) if is_written(call.node) else uniform_axis(size) for size in call.shape]


def position(call: OperatorCall) -> Axes:
    """Make a tensor of positions (`arange`, `tril`): its axes keep their order."""
    return [call.fixed(size, "made of positions") for size in call.shape]


def prelu(call: OperatorCall) -> Axes:
    """Follow PReLU with one slope, or one per channel."""
    axes, (slope,) = call.axes("self"), call.axes("weight")
    if slope.size != 1:
        call.same(axes[1], slope)
    return axes


def argument_of(call: OperatorCall) -> Axes:
    """Find the index of the largest or smallest element; the axis has to keep its order."""
    axes = call.axes(_input(call))
    gone = dim_list(call["dim"], len(axes))
    for dim in gone:
        call.fix(axes[dim], "its index is read")
    return _reduced(call)


def _input(call: OperatorCall) -> str:
    return "self" if "self" in call.arguments else "input"


_POINTWISE = [
    "abs",
    "add",
    "add_",
    "addcdiv",
    "addcmul",
    "atan2",
    "bitwise_and",
    "bitwise_not",
    "bitwise_or",
    "ceil",
    "celu",
    "clamp",
    "clamp_max",
    "clamp_min",
    "cos",
    "div",
    "elu",
    "eq",
    "erf",
    "exp",
    "expm1",
    "floor",
    "floor_divide",
    "ge",
    "gelu",
    "gt",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "le",
    "leaky_relu",
    "lerp",
    "log",
    "log1p",
    "log_sigmoid",
    "logical_and",
    "logical_not",
    "logical_or",
    "lt",
    "masked_fill",
    "maximum",
    "minimum",
    "mish",
    "mul",
    "ne",
    "neg",
    "pow",
    "reciprocal",
    "relu",
    "relu6",
    "remainder",
    "round",
    "rsqrt",
    "rsub",
    "selu",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "softplus",
    "softsign",
    "sqrt",
    "square",
    "sub",
    "tanh",
    "threshold",
    "where",
    "isnan",
    "isinf",
    "isfinite",
    "nan_to_num",
    "fmod",
    "rad2deg",
    "sinh",
    "cosh",
    "tan",
    "erfc",
    "xlogy",
    "__and__",
    "__iand__",
    "__or__",
    "__ior__",
    "__xor__",
    "__ixor__",
    "acos",
    "acosh",
    "arctan",
    "arctan2",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "bitwise_xor",
    "copy",
    "copysign",
    "deg2rad",
    "digamma",
    "divide",
    "erfinv",
    "exp2",
    "fill",
    "float_power",
    "fmax",
    "fmin",
    "frac",
    "greater",
    "greater_equal",
    "hardshrink",
    "heaviside",
    "hypot",
    "i0",
    "less",
    "less_equal",
    "lgamma",
    "log10",
    "log2",
    "logaddexp",
    "logaddexp2",
    "logical_xor",
    "logit",
    "multiply",
    "negative",
    "not_equal",
    "positive",
    "rrelu",
    "sgn",
    "signbit",
    "sinc",
    "softshrink",
    "special_expit",
    "special_erf",
    "special_log1p",
    "subtract",
    "true_divide",
    "trunc",
]
_FIRST = [
    "alias",
    "alpha_dropout",
    "clone",
    "contiguous",
    "detach",
    "dropout",
    "feature_dropout",
    "lift_fresh_copy",
    "to",
    "type_as",
    "_to_copy",
    "float",
    "double",
    "half",
    "detach_",
    "native_dropout",
    "zero",
]
_REDUCE = [
    "mean",
    "sum",
    "amax",
    "amin",
    "var",
    "std",
    "prod",
    "logsumexp",
    "norm",
    "linalg_vector_norm",
    "all",
    "any",
    "count_nonzero",
    "nanmean",
    "nansum",
    "std_mean",
    "var_mean",
]

RULES: Mapping[str, object] = {
    **dict.fromkeys(_POINTWISE, pointwise),
    **dict.fromkeys(_FIRST, first_pointwise),
    **dict.fromkeys(_REDUCE, reduce),
    **dict.fromkeys(("softmax", "log_softmax", "_softmax", "_log_softmax"), equivariant),
    **dict.fromkeys(("cumsum", "cumprod", "flip", "roll"), fix_along),
    **dict.fromkeys(("argmax", "argmin"), argument_of),
    **dict.fromkeys(
        (
            "zeros",
            "ones",
            "full",
            "empty",
            "zeros_like",
            "ones_like",
            "full_like",
            "new_zeros",
            "new_ones",
            "new_full",
            "scalar_tensor",
            "new_empty",
        ),
        uniform,
    ),
    **dict.fromkeys(("arange", "linspace", "eye"), position),
    "prelu": prelu,
}
