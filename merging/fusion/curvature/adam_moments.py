"""Adam's second moments of several models as their curvatures: on one scale, and complete."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from merging.files.checkpoints.lazy_params import LazyParams, StateDict
from merging.files.checkpoints.read import TensorSpec
from merging.fusion.blocks import InBlocks, entries_of, specs_of
from merging.schema.cards.fusion.curvature import MOMENT_SCALE
from merging.schema.errors import MergingError


@dataclass(frozen=True, eq=False)
class Curvatures:
    """Curvatures as `fuse` takes them.

    Attributes:
        fishers: One for every model, if there are any.
        base_fisher: The base's, if it was given.
    """

    fishers: Sequence[StateDict] | None
    base_fisher: StateDict | None


def curvatures_from_moments(
    moments: Sequence[StateDict],
    like: StateDict,
    *,
    base: StateDict | None = None,
    scale: float = MOMENT_SCALE,
) -> Curvatures:
    """Return every entry's curvature from Adam's second moments, which lack what was not trained.

    A tensor of which no optimizer has a state (a buffer, a layer that was frozen in all models) has
    curvature 0: Fisher averaging takes the mean there, and gradient matching what task arithmetic
    does. A tensor that some remember and others do not is refused: how much it matters to a model
    that did not train it cannot be known from there.

    Args:
        moments: `adam_second_moment` of every model, or opened ones.
        like: A model, for the names and shapes.
        base: The base's second moment, for the rules that need it.
        scale: What they are multiplied by: examples in the training set times examples in a batch,
            which all models share. Where they do not, multiply each by its own (`on_sum_scale`),
            and give 1.

    Returns:
        The curvatures; tensors are made when they are asked for.

    Raises:
        MergingError: If the scale is not positive, a second moment is of another architecture, or
            only some of the models trained a tensor.

    Example:
        >>> model = {"w": torch.ones(2), "mask": torch.ones(1)}
        >>> found = curvatures_from_moments([{"w": torch.tensor([1.0, 2.0])}], model, scale=10)
        >>> dict(found.fishers[0])
        {'w': tensor([10., 20.]), 'mask': tensor([0.])}
    """
    if not scale > 0:
        raise MergingError(f"the scale of second moments must be positive, not {scale}")
    every = {f"model {k + 1}": moment for k, moment in enumerate(moments)}
    if base is not None:
        every["the base"] = base
    specs = specs_of(like)
    shapes = {name: tuple(spec.shape) for name, spec in specs.items() if _floating(spec)}
    for title, moment in every.items():
        _check_fits(title, moment, shapes)
    for name in shapes:
        _check_known(name, every)
    whole = [_Whole(moment, shapes, scale) for moment in every.values()]
    return Curvatures(whole[: len(moments)], None if base is None else whole[-1])


def _floating(spec: Tensor) -> bool:
    return spec.dtype.is_floating_point


def _check_fits(title: str, moment: StateDict, shapes: Mapping[str, tuple[int, ...]]) -> None:
    specs = specs_of(moment)
    for name in moment:
        if tuple(specs[name].shape) != shapes.get(name):
            raise MergingError(
                f"the second moment of {title} has a tensor {name!r} of shape "
                f"{list(specs[name].shape)}, which the models lack; give that of the same "
                "architecture"
            )


def _check_known(name: str, moments: Mapping[str, StateDict]) -> None:
    """Make sure that all models trained a tensor, or none; the base may have trained it before.

    Raises:
        MergingError: If only some did.
    """
    knows = [title for title, moment in moments.items() if name in moment]
    if len(knows) == len(moments) or not knows or knows == ["the base"]:
        return
    other = next(title for title in moments if title not in knows)
    raise MergingError(
        f"Adam has no second moment of {name!r} in {other}, where it was frozen or never had a "
        f"gradient, but has one in {knows[0]}; compute curvature from examples"
    )


class _Whole(LazyParams):
    """A second moment on another scale, with zeros for what is not in it.

    Attributes:
        specs: Name → shape and dtype of each tensor.
    """

    def __init__(
        self, moment: StateDict, shapes: Mapping[str, tuple[int, ...]], scale: float
    ) -> None:
        self._moment, self._scale = moment, scale
        known = specs_of(moment)
        self.specs = {
            name: TensorSpec(shape, known[name].dtype if name in known else torch.float32)
            for name, shape in shapes.items()
        }
        super().__init__(self.specs, self._scaled)

    def _scaled(self, name: str) -> Tensor:
        if name in self._moment:
            return self._moment[name] * self._scale
        return torch.zeros(self.specs[name].shape)

    def blocks(self, name: str, entries: int) -> Iterator[Tensor]:
        """Yield one tensor in blocks.

        Args:
            name: One of `specs`.
            entries: How many entries a block has; the last has what is left.

        Yields:
            Blocks `[n]` in the order of the entries.
        """
        if isinstance(self._moment, InBlocks) and name in self._moment:
            for block in self._moment.blocks(name, entries):
                yield block * self._scale
        else:
            yield from entries_of(self[name], entries)
