"""Data sets made of a bundled one: the same digits rotated, inverted, thickened, or some of them.

A name is a path: the bundled set, then steps from left to right, as `mnist/part-2-of-2/rotated-20`.
Images stay bytes from step to step, so that rounding of single pixels is all that another version
of SciPy could change. Training examples that no such set trains on are its validation split: they
are the same digits in all sets made of one, whatever the steps, so a model of one task never saw
the validation digits of another.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from merging.schema.errors import UnknownNameError

Images = NDArray[np.uint8]

VALIDATION_SHARE = 0.2  # of the bundled training split, the last of its rows

_PARTS = "|".join(f"[1-{n}]-of-{n}" for n in range(1, 10))
_MARGIN = 4  # pixels around a digit, as MNIST has them


@dataclass(frozen=True, eq=False)
class Split:
    """Grey images and their labels.

    Attributes:
        name: `"train"`, `"validation"` or `"test"`.
        images: uint8 `[n, height, width]`, 0 is background.
        labels: int64 `[n]`.
    """

    name: str
    images: Images
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Step:
    """A change of a data set.

    Attributes:
        form: What to write, for messages.
        pattern: What a written step must match; its group, if any, is the argument.
        title: What screens call it, given the argument.
        change: The changed split, given the argument.
    """

    form: str
    pattern: str
    title: Callable[[str], str]
    change: Callable[[Split, str], Split]


def derive(splits: Sequence[Split], steps: Sequence[str]) -> tuple[list[Split], list[str]]:
    """Carve the validation split from the training split, then change all splits step by step.

    Args:
        splits: The bundled set's training and test split, in this order.
        steps: What to do, such as `["rotated-20", "inverted"]`.

    Returns:
        Training, validation and test split, and the titles of the steps.

    Raises:
        UnknownNameError: If there is no such step.

    Example:
        >>> split = Split("train", np.zeros((10, 2, 2), np.uint8), np.arange(10))
        >>> made, titles = derive([split, replace(split, name="test")], ["inverted"])
        >>> [len(part.labels) for part in made], int(made[0].images.min()), titles
        ([8, 2, 10], 255, ['inverted'])
    """
    train, test = splits
    kept = round((1 - VALIDATION_SHARE) * len(train.labels))
    made = [
        Split("train", train.images[:kept], train.labels[:kept]),
        Split("validation", train.images[kept:], train.labels[kept:]),
        test,
    ]
    titles = []
    for written in steps:
        step, argument = find_step(written)
        made = [step.change(split, argument) for split in made]
        titles.append(step.title(argument))
    return made, titles


def find_step(written: str) -> tuple[Step, str]:
    """Return the step that is written so, and its argument.

    Raises:
        UnknownNameError: If there is none.

    Example:
        >>> find_step("rotated-20")[1]
        '20'
    """
    for step in STEPS:
        match = re.fullmatch(step.pattern, written)
        if match is not None:
            return step, match[1] if match.re.groups else ""
    forms = ", ".join(step.form for step in STEPS)
    raise UnknownNameError(f"unknown change of a data set {written!r}; choose from {forms}")


def _on_images(change: Callable[[Images], Images]) -> Callable[[Split, str], Split]:
    return lambda split, _: replace(split, images=np.ascontiguousarray(change(split.images)))


def _rotated(split: Split, angle: str) -> Split:
    turned = ndimage.rotate(
        split.images.astype(np.float32), float(angle), axes=(2, 1), reshape=False, order=1
    )
    return replace(split, images=np.rint(turned).clip(0, 255).astype(np.uint8))


def _moved(split: Split, pixels: str) -> Split:
    """Move the images to the right; what leaves enters on the left, which is background."""
    return replace(split, images=np.roll(split.images, int(pixels), axis=2))


def _noisy(split: Split, percent: str) -> Split:
    """Replace a share of the pixels by grey levels drawn at random."""
    rng = np.random.default_rng([int(percent), len(split.labels)])
    noise = rng.integers(0, 256, split.images.shape, dtype=np.uint8)
    hit = rng.random(split.images.shape) < int(percent) / 100
    return replace(split, images=np.where(hit, noise, split.images))


def _enlarged(images: Images) -> Images:
    """Return digits of 8 x 8 pixels as MNIST has them: 20 x 20, in the middle of 28 x 28."""
    side = 28 - 2 * _MARGIN
    grown = ndimage.zoom(
        images.astype(np.float32), (1, side / images.shape[1], side / images.shape[2]), order=1
    )
    return np.pad(np.rint(grown).astype(np.uint8), ((0, 0), (_MARGIN, _MARGIN), (_MARGIN, _MARGIN)))


def _labelled(split: Split, labels: str) -> Split:
    rows = np.isin(split.labels, [int(label) for label in labels])
    return replace(split, images=split.images[rows], labels=split.labels[rows])


def _part(split: Split, part: str) -> Split:
    """Return one of several equal parts of the training examples; the other splits stay whole."""
    if split.name != "train":
        return split
    k, parts = (int(number) for number in part.split("-of-"))
    cuts = np.linspace(0, len(split.labels), parts + 1).round().astype(int)
    rows = slice(cuts[k - 1], cuts[k])
    return replace(split, images=split.images[rows], labels=split.labels[rows])


def _part_title(part: str) -> str:
    k, parts = part.split("-of-")
    return f"part {k} of {parts}"


def _signed(angle: str) -> str:
    degrees = int(angle) - 360 if int(angle) > 180 else int(angle)
    return f"rotated by {degrees}°".replace("-", "−")


STEPS: Sequence[Step] = (
    Step(
        form="upright", pattern="upright", title=lambda _: "upright", change=lambda split, _: split
    ),
    Step(form="part-1-of-2", pattern=rf"part-({_PARTS})", title=_part_title, change=_part),
    Step(
        form="labels-01",
        pattern=r"labels-(\d{1,10})",
        title=lambda found: f"digits {', '.join(found)}",
        change=_labelled,
    ),
    Step(
        form="rotated-20",
        pattern=r"rotated-([1-9]\d?|[12]\d\d|3[0-5]\d)",
        title=_signed,
        change=_rotated,
    ),
    Step(
        form="moved-1",
        pattern=r"moved-([1-4])",
        title=lambda pixels: f"moved by {pixels} px",
        change=_moved,
    ),
    Step(
        form="inverted",
        pattern="inverted",
        title=lambda _: "inverted",
        change=_on_images(lambda images: 255 - images),
    ),
    Step(
        form="mirrored",
        pattern="mirrored",
        title=lambda _: "mirrored",
        change=_on_images(lambda images: images[:, :, ::-1]),
    ),
    Step(
        form="noisy-30",
        pattern=r"noisy-([1-9]\d?)",
        title=lambda percent: f"{percent} % of the pixels at random",
        change=_noisy,
    ),
    Step(
        form="thickened",
        pattern="thickened",
        title=lambda _: "thickened",
        change=_on_images(lambda images: ndimage.grey_dilation(images, size=(1, 2, 2))),
    ),
    Step(
        form="thinned",
        pattern="thinned",
        title=lambda _: "thinned",
        change=_on_images(lambda images: ndimage.grey_erosion(images, size=(1, 2, 2))),
    ),
    Step(
        form="enlarged", pattern="enlarged", title=lambda _: "28 × 28", change=_on_images(_enlarged)
    ),
)

# What a bundled set's grey levels are multiplied by to be bytes from 0 to 255.
GREY_FACTORS: Mapping[str, float] = MappingProxyType({"mnist": 1.0, "digits": 255 / 16})
