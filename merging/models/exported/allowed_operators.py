"""The operators that a stranger's graph may call: one reviewed table, by name and overload.

What stands here computes its result from its arguments alone: it opens no file, changes no setting
of the process, draws no random numbers (`call_arguments` sees to it), leaves no memory unwritten,
checks every index that it follows, and says in its schema what it writes into. Forward only.
`benchmarks.fuzz_operators` calls all of them with hostile arguments.

Not here, although a rule of symmetry exists: `empty` and `new_empty` (they show what the memory
held), what changes the shape of its input in place (`t_`), what is as long as its values say
(`repeat_interleave.Tensor`), `view.dtype`, packed sequences, and forms with `out=` or names.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch._ops import OpOverload

_WITH_A_RULE = """
    __and__.Scalar __and__.Tensor __or__.Scalar __or__.Tensor __xor__.Scalar __xor__.Tensor
    _cdist_forward _log_softmax _softmax _to_copy _unsafe_view _upsample_bicubic2d_aa
    _upsample_bicubic2d_aa.vec _upsample_bilinear2d_aa _upsample_bilinear2d_aa.vec
    _upsample_nearest_exact1d _upsample_nearest_exact1d.vec _upsample_nearest_exact2d
    _upsample_nearest_exact2d.vec _upsample_nearest_exact3d _upsample_nearest_exact3d.vec
    _weight_norm abs acos acosh adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d add.Scalar add.Tensor addcdiv
    addcmul addmm adjoint alias all all.dim all.dims alpha_dropout amax amin aminmax any any.dim
    any.dims arange arange.start arange.start_step arctan arctan2 argmax argmin argsort
    argsort.stable asin asinh atan atan2 atanh avg_pool1d avg_pool2d avg_pool3d baddbmm batch_norm
    bilinear bitwise_and.Scalar bitwise_and.Scalar_Tensor bitwise_and.Tensor bitwise_not
    bitwise_or.Scalar bitwise_or.Scalar_Tensor bitwise_or.Tensor bitwise_xor.Scalar
    bitwise_xor.Scalar_Tensor bitwise_xor.Tensor bmm broadcast_to cat cdist ceil celu
    channel_shuffle chunk clamp clamp.Tensor clamp_max clamp_max.Tensor clamp_min clamp_min.Tensor
    clone col2im concat concatenate constant_pad_nd contiguous conv1d conv1d.padding conv2d
    conv2d.padding conv3d conv3d.padding conv_transpose1d conv_transpose2d.input
    conv_transpose3d.input convolution copy copysign.Scalar copysign.Tensor cos cosh
    cosine_similarity count_nonzero count_nonzero.dim_IntList cumprod cumsum deg2rad detach diff
    digamma div.Scalar div.Scalar_mode div.Tensor div.Tensor_mode divide.Scalar divide.Scalar_mode
    divide.Tensor divide.Tensor_mode dot dropout einsum elu embedding eq.Scalar eq.Tensor erf erfc
    erfinv exp exp2 expand expand_as expm1 eye eye.m feature_dropout fill.Scalar fill.Tensor
    flatten.using_ints flip float_power.Scalar float_power.Tensor_Scalar float_power.Tensor_Tensor
    floor floor_divide floor_divide.Scalar fmax fmin fmod.Scalar fmod.Tensor frac full full_like
    gather ge.Scalar ge.Tensor gelu ger glu greater.Scalar greater.Tensor greater_equal.Scalar
    greater_equal.Tensor grid_sampler grid_sampler_2d grid_sampler_3d group_norm gru.input
    gru_cell gt.Scalar gt.Tensor hardshrink hardsigmoid hardswish hardtanh heaviside hstack hypot
    i0 im2col index.Tensor index_select instance_norm isfinite isinf isnan kron kthvalue
    layer_norm le.Scalar le.Tensor leaky_relu lerp.Scalar lerp.Tensor less.Scalar less.Tensor
    less_equal.Scalar less_equal.Tensor lgamma lift_fresh_copy linalg_vecdot linalg_vector_norm
    linear linspace log log10 log1p log2 log_sigmoid log_softmax.int logaddexp logaddexp2
    logical_and logical_not logical_or logical_xor logit logsumexp lstm.input lstm_cell lt.Scalar
    lt.Tensor mH mT masked_fill.Scalar masked_fill.Tensor matmul max max.dim max.other max_pool1d
    max_pool1d_with_indices max_pool2d max_pool2d_with_indices max_pool3d max_pool3d_with_indices
    max_unpool2d max_unpool3d maximum mean mean.dim median median.dim min min.dim min.other
    minimum mish mm mode moveaxis.int moveaxis.intlist movedim.int movedim.intlist mul.Scalar
    mul.Tensor multiply.Scalar multiply.Tensor mv nan_to_num nanmean nanmedian nanmedian.dim
    nansum narrow native_channel_shuffle native_dropout ne.Scalar ne.Tensor neg negative new_full
    new_ones new_zeros norm.Scalar norm.ScalarOpt_dim norm.ScalarOpt_dim_dtype
    norm.ScalarOpt_dtype not_equal.Scalar not_equal.Tensor numpy_T ones ones_like outer pad
    pairwise_distance permute pixel_shuffle pixel_unshuffle positive pow.Scalar pow.Tensor_Scalar
    pow.Tensor_Tensor prelu prod prod.dim_int rad2deg reciprocal relu relu6 remainder.Scalar
    remainder.Scalar_Tensor remainder.Tensor repeat repeat_interleave.self_int reshape reshape_as
    rms_norm rnn_relu.input rnn_relu_cell rnn_tanh.input rnn_tanh_cell roll round round.decimals
    rsqrt rsub.Scalar rsub.Tensor scalar_tensor scaled_dot_product_attention select.int selu sgn
    sigmoid sign signbit silu sin sinc sinh slice.Tensor softmax.int softplus softshrink sort
    sort.stable special_erf special_expit special_log1p split.Tensor split.sizes split_with_sizes
    sqrt square squeeze squeeze.dim squeeze.dims stack std std.correction std.dim std_mean
    std_mean.correction std_mean.dim sub.Scalar sub.Tensor subtract.Scalar subtract.Tensor sum
    sum.dim_IntList swapaxes swapdims t tan tanh tensor_split.indices tensor_split.sections
    tensordot threshold tile to.device to.dtype to.dtype_layout to.other topk transpose.int
    true_divide.Scalar true_divide.Tensor trunc type_as unbind.int unflatten.int unfold unsqueeze
    upsample_bicubic2d upsample_bicubic2d.vec upsample_bilinear2d upsample_bilinear2d.vec
    upsample_linear1d upsample_linear1d.vec upsample_nearest1d upsample_nearest1d.vec
    upsample_nearest2d upsample_nearest2d.vec upsample_nearest3d upsample_nearest3d.vec
    upsample_trilinear3d upsample_trilinear3d.vec var var.correction var.dim var_mean
    var_mean.correction var_mean.dim vdot view view_as vstack where.Scalar where.ScalarOther
    where.ScalarSelf where.self xlogy.Scalar_Other xlogy.Scalar_Self xlogy.Tensor zero zeros
    zeros_like
"""

_WRITING = """
    __iand__.Scalar __iand__.Tensor __ior__.Scalar __ior__.Tensor __ixor__.Scalar __ixor__.Tensor
    detach_
    abs_ acos_ acosh_ add_.Scalar add_.Tensor addcdiv_ addcmul_ addmm_ alpha_dropout_ arctan2_
    arctan_ asin_ asinh_ atan2_ atan_ atanh_ baddbmm_ bitwise_and_.Scalar bitwise_and_.Tensor
    bitwise_not_ bitwise_or_.Scalar bitwise_or_.Tensor bitwise_xor_.Scalar bitwise_xor_.Tensor
    ceil_ celu_ clamp_ clamp_.Tensor clamp_max_ clamp_max_.Tensor clamp_min_ clamp_min_.Tensor
    copy_ copysign_.Scalar copysign_.Tensor cos_ cosh_ cumprod_ cumsum_ deg2rad_ digamma_
    div_.Scalar div_.Scalar_mode div_.Tensor div_.Tensor_mode divide_.Scalar divide_.Scalar_mode
    divide_.Tensor divide_.Tensor_mode dropout_ elu_ eq_.Scalar eq_.Tensor erf_ erfc_ erfinv_
    exp2_ exp_ expm1_ feature_dropout_ fill_.Scalar fill_.Tensor float_power_.Scalar
    float_power_.Tensor floor_ floor_divide_.Scalar floor_divide_.Tensor fmod_.Scalar fmod_.Tensor
    frac_ ge_.Scalar ge_.Tensor gelu_ greater_.Scalar greater_.Tensor greater_equal_.Scalar
    greater_equal_.Tensor gt_.Scalar gt_.Tensor hardsigmoid_ hardswish_ hardtanh_ heaviside_
    hypot_ i0_ le_.Scalar le_.Tensor leaky_relu_ lerp_.Scalar lerp_.Tensor less_.Scalar
    less_.Tensor less_equal_.Scalar less_equal_.Tensor lgamma_ log10_ log1p_ log2_ log_
    logical_and_ logical_not_ logical_or_ logical_xor_ logit_ lt_.Scalar lt_.Tensor
    masked_fill_.Scalar masked_fill_.Tensor mish_ mul_.Scalar mul_.Tensor multiply_.Scalar
    multiply_.Tensor nan_to_num_ ne_.Scalar ne_.Tensor neg_ negative_ not_equal_.Scalar
    not_equal_.Tensor pow_.Scalar pow_.Tensor rad2deg_ reciprocal_ relu6_ relu_ remainder_.Scalar
    remainder_.Tensor round_ round_.decimals rsqrt_ selu_ sgn_ sigmoid_ sign_ silu_ sin_ sinc_
    sinh_ sqrt_ square_ sub_.Scalar sub_.Tensor subtract_.Scalar subtract_.Tensor tan_ tanh_
    threshold_ true_divide_.Scalar true_divide_.Tensor trunc_ xlogy_.Scalar_Other xlogy_.Tensor
    zero_ index_put_
"""

_WITHOUT_A_RULE = """
    _assert_tensor_metadata _safe_softmax absolute addbmm addmv broadcast_tensors index_put
    isclose logcumsumexp meshgrid meshgrid.indexing native_group_norm native_layer_norm one_hot
    rot90 rrelu scatter.src scatter.value scatter_add select_scatter slice_scatter sym_size.int
    take_along_dim tril triu
"""

# Arguments that are texts, and what they may be; an equation is checked by itself.
TEXTS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "approximate": ("none", "tanh"),
    "indexing": ("ij", "xy"),
    "mode": ("constant", "reflect", "replicate", "circular"),
    "padding": ("valid", "same"),
    "rounding_mode": ("floor", "trunc"),
})

ALLOWED: frozenset[str] = frozenset(
    name if "." in name else f"{name}.default"
    for name in (*_WITH_A_RULE.split(), *_WRITING.split(), *_WITHOUT_A_RULE.split())
)


def find_operator(name: str) -> OpOverload | None:
    """Return the operator of that name and overload, such as `"conv2d.default"`.

    Returns:
        The operator; None if it is not allowed, or this PyTorch does not have it.
    """
    if name not in ALLOWED:
        return None
    packet, _, overload = name.partition(".")
    found = getattr(getattr(torch.ops.aten, packet, None), overload, None)
    return found if isinstance(found, OpOverload) else None
