"""Rules of the operators that hold parameters: linear maps, convolutions, norms, attention.

Grouped convolution and GroupNorm, with `g` groups of `m` channels, keep their function under every
order of the groups together with any order inside each: a wreath product, `g! (m!)^g` orderings.
The rules state what is an index set; which ones are nested in others, `nesting` reads off.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from merging.symmetry.rules.call import Axes, OperatorCall, TensorAxes
from merging.symmetry.rules.expressions import Axis, product


def linear(call: OperatorCall) -> Axes:
    """Follow `x W^T + b`: W's axis 1 is the input's last axis, and its axis 0 the output's last."""
    axes, weight = call.axes("input"), call.axes("weight")
    call.same(axes[-1], weight[-1])
    return [*axes[:-1], *_output(call, weight[:-1])]


def _output(call: OperatorCall, outputs: Axes) -> Axes:
    bias = call["bias"]
    if isinstance(bias, TensorAxes) and outputs:
        call.same(outputs[0], bias.axes[0])
    return outputs


def convolution(call: OperatorCall) -> Axes:
    """Follow a convolution `[n, channels, *spatial]`, grouped and depthwise too.

    With `g` groups, input channels are `g x inputs per group` and output channels
    `g x outputs per group`: whole groups may change places, and so may channels in every group.
    """
    axes, weight, groups = call.axes("input"), call.axes("weight"), call["groups"] or 1
    transposed = "transpose" in call.operator or bool(call["transposed"])
    for axis in weight[2:]:
        call.fix(axis, "kernel position")
    for axis in axes[2:]:
        call.fix(axis, "spatial position")
    inputs, outputs = (weight[0], weight[1]) if transposed else (weight[1], weight[0])
    if groups == 1:
        call.same(axes[1], inputs)
    elif transposed:
        group = Axis(groups)
        call.same(axes[1], product([group, Axis(inputs.size // groups)]))
        call.same(axes[1], inputs)
        outputs = product([group, outputs])
    else:
        group = Axis(groups)
        call.same(axes[1], product([group, inputs]))
        call.same(outputs, product([group, Axis(outputs.size // groups)]))
    spatial = [call.fixed(size, "spatial position") for size in call.shape[2:]]
    return [axes[0], *_output(call, [outputs]), *spatial]


def _affine(call: OperatorCall, names: tuple[str, ...], axes: Axes) -> None:
    for name in names:
        value = call[name]
        if isinstance(value, TensorAxes):
            for axis, own in zip(axes, value.axes, strict=True):
                call.same(axis, own)


def batch_norm(call: OperatorCall) -> Axes:
    """Follow a norm per channel: affine parameters and running statistics go with the channels."""
    axes = call.axes("input")
    call.inner.append(axes[:2])
    _affine(call, ("weight", "bias", "running_mean", "running_var"), axes[1:2])
    return axes


def layer_norm(call: OperatorCall) -> Axes:
    """Follow a norm over the last axes: symmetric in them, with an affine map that goes along."""
    axes = call.axes("input")
    normalized = call["normalized_shape"] or []
    call.inner.append(axes[: len(axes) - len(normalized)])
    _affine(call, ("weight", "bias"), axes[len(axes) - len(normalized) :])
    return axes


def group_norm(call: OperatorCall) -> Axes:
    """Follow a norm over groups: channels are `groups x channels per group`."""
    axes, groups = call.axes("input"), call["num_groups"]
    if groups > 1:
        group = Axis(groups)
        call.same(axes[1], product([group, Axis(axes[1].size // groups)]))
        call.inner.append([axes[0], group, *axes[2:]])
    _affine(call, ("weight", "bias"), axes[1:2])
    return axes


def matmul(call: OperatorCall) -> Axes:
    """Multiply matrices over the last two axes; leading axes broadcast."""
    a, b = (tensor.axes for tensor in list(call.tensors())[:2])
    call.same(a[-1], b[-2] if len(b) > 1 else b[-1])
    batch = call.broadcast([a[:-2], b[:-2]])
    return [*batch, *a[-2:-1], *(b[-1:] if len(b) > 1 else [])]


def addmm(call: OperatorCall) -> Axes:
    """Follow `input + a b`."""
    a, b = (
        (call.axes("mat1"), call.axes("mat2"))
        if "mat1" in call.arguments
        else (call.axes("batch1"), call.axes("batch2"))
    )
    call.same(a[-1], b[-2])
    result = [*call.broadcast([a[:-2], b[:-2]]), a[-2], b[-1]]
    return call.broadcast([result, call.axes("self")])


def einsum(call: OperatorCall) -> Axes:
    """Follow `einsum`: a letter is an index set; what an ellipsis stands for broadcasts.

    Without an arrow, the letters that occur once are what becomes of it, in alphabetical order.
    """
    sources, arrow, target = cast("str", call["equation"]).replace(" ", "").partition("->")
    terms = sources.split(",")
    if not arrow:
        once = sorted(
            letter for letter in sources if letter.isalpha() and sources.count(letter) == 1
        )
        target = ("..." if "." in sources else "") + "".join(once)
    letters: dict[str, Axis] = {}
    rest: list[Axes] = []
    for term, tensor in zip(terms, cast("list[TensorAxes]", call["tensors"]), strict=True):
        before, dots, after = term.partition("...")
        axes, end = tensor.axes, len(tensor.axes) - len(after)
        if dots:
            rest.append(axes[len(before) : end])
            axes = [*axes[: len(before)], *axes[end:]]
        for letter, axis in zip(before + after, axes, strict=True):
            known = letters.setdefault(letter, axis)
            if known.size == 1:
                letters[letter] = axis
            elif axis.size != 1:
                call.same(known, axis)
    before, dots, after = target.partition("...")
    common = call.broadcast(rest) if dots else []
    return [*(letters[x] for x in before), *common, *(letters[x] for x in after)]


def attention(call: OperatorCall) -> Axes:
    """Follow scaled dot-product attention `[batch, heads, tokens, units]`.

    Queries and keys share the units that are summed over; the output has the values' units. With
    grouped queries, query heads are `key heads x queries per key head`.
    """
    query, key, value = call.axes("query"), call.axes("key"), call.axes("value")
    call.same(query[-1], key[-1])
    call.same(key[-2], value[-2])
    for a, b in zip(key[:-2], value[:-2], strict=True):
        call.same(a, b)
    if call["enable_gqa"] and query[-3].size != key[-3].size:
        repeats = Axis(query[-3].size // key[-3].size)
        call.same(query[-3], product([key[-3], repeats]))
        batch = [*call.broadcast([query[:-3], key[:-3]]), query[-3]]
    else:
        batch = call.broadcast([query[:-2], key[:-2]])
    if call["is_causal"]:
        call.fix(query[-2], "token position")
        call.fix(key[-2], "token position")
    scores = [*batch, query[-2], key[-2]]
    if isinstance(call["attn_mask"], TensorAxes):
        scores = call.broadcast([scores, call.axes("attn_mask")])
    call.inner.extend([scores, scores[:-1]])  # the softmax is along the keys
    return [*scores[:-1], value[-1]]


def embedding(call: OperatorCall) -> Axes:
    """Look up rows by position."""
    weight = call.axes("weight")
    call.fix(weight[0], "rows are looked up")
    return [*call.axes("indices"), weight[1]]


RULES: Mapping[str, object] = {
    "linear": linear,
    **dict.fromkeys(
        (
            "conv1d",
            "conv2d",
            "conv3d",
            "convolution",
            "conv_transpose1d",
            "conv_transpose2d",
            "conv_transpose3d",
        ),
        convolution,
    ),
    **dict.fromkeys(("batch_norm", "instance_norm"), batch_norm),
    **dict.fromkeys(("layer_norm", "rms_norm"), layer_norm),
    "group_norm": group_norm,
    **dict.fromkeys(("matmul", "bmm", "mm", "mv", "dot", "vdot"), matmul),
    **dict.fromkeys(("addmm", "baddbmm"), addmm),
    "einsum": einsum,
    "scaled_dot_product_attention": attention,
    "embedding": embedding,
}
