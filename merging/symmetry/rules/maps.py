"""Rules of operators on maps `[n, channels, *spatial]` that move values between their axes."""

from __future__ import annotations

from collections.abc import Mapping

from merging.symmetry.rules.call import Axes, OperatorCall
from merging.symmetry.rules.expressions import Axis, product


def pixel_shuffle(call: OperatorCall) -> Axes:
    """Make `channels x factor x factor` a finer map, or the other way round."""
    axes, fine = call.axes("self"), call.operator == "pixel_shuffle"
    for axis in axes[-2:]:
        call.fix(axis, "spatial position")
    small, large = (call.shape[-3], axes[-3].size) if fine else (axes[-3].size, call.shape[-3])
    offsets = call.fixed(large // small, "spatial offset")
    channels = Axis(small) if fine else product([axes[-3], offsets])
    if fine:
        call.same(axes[-3], product([channels, offsets]))
    return [*axes[:-3], channels, *_spatial(call, 2)]


def channel_shuffle(call: OperatorCall) -> Axes:
    """Make channels `groups x channels per group` into `channels per group x groups`."""
    axes, groups = next(call.tensors()).axes, call["groups"]
    group, inner = Axis(groups), Axis(axes[1].size // groups)
    call.same(axes[1], product([group, inner]))
    return [axes[0], product([inner, group]), *axes[2:]]


def unpool(call: OperatorCall) -> Axes:
    """Put values back where max pooling found them: channels by themselves."""
    axes, indices = call.axes("self"), call.axes("indices")
    spatial = int(next(digit for digit in call.operator if digit.isdigit()))
    for axis in (*axes[-spatial:], *indices[-spatial:]):
        call.fix(axis, "spatial position")
    for a, b in zip(axes[:-spatial], indices[:-spatial], strict=True):
        call.same(a, b)
    return [*axes[:-spatial], *_spatial(call, spatial)]


def unfold(call: OperatorCall) -> Axes:
    """Cut a map into patches, `channels x kernel` each."""
    axes = call.axes("self")
    for axis in axes[-2:]:
        call.fix(axis, "spatial position")
    kernel = call.fixed(call.shape[-2] // axes[-3].size, "kernel position")
    return [*axes[:-3], product([axes[-3], kernel]), *_spatial(call, 1)]


def fold(call: OperatorCall) -> Axes:
    """Add up patches `channels x kernel` to a map."""
    axes = call.axes("self")
    call.fix(axes[-1], "spatial position")
    channels = Axis(call.shape[-3])
    kernel = call.fixed(axes[-2].size // channels.size, "kernel position")
    call.same(axes[-2], product([channels, kernel]))
    return [*axes[:-2], channels, *_spatial(call, 2)]


def grid_sample(call: OperatorCall) -> Axes:
    """Read values of a map at given places: channels by themselves."""
    axes, grid = call.axes("input"), call.axes("grid")
    for axis in (*axes[2:], grid[-1]):
        call.fix(axis, "spatial position")
    call.same(axes[0], grid[0])
    return [*axes[:2], *grid[1:-1]]


def _spatial(call: OperatorCall, count: int) -> Axes:
    return [call.fixed(size, "spatial position") for size in call.shape[-count:]]


RULES: Mapping[str, object] = {
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle"), pixel_shuffle),
    **dict.fromkeys(("channel_shuffle", "native_channel_shuffle"), channel_shuffle),
    **dict.fromkeys(("max_unpool2d", "max_unpool3d"), unpool),
    "im2col": unfold,
    "col2im": fold,
    **dict.fromkeys(("grid_sampler", "grid_sampler_2d", "grid_sampler_3d"), grid_sample),
}
