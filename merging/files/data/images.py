"""Images in folders, one folder per class, decoded under limits.

The size that an image states is read before anything is decoded, so that a small file that would
become a huge picture is refused by its header.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from merging.files.data.arrays import ExampleArrays, check_names
from merging.files.data.collection import Files
from merging.schema.errors import DataError

MAX_PIXELS = 25_000_000

_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"GIF8")
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
_MODES = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "PA": "RGB", "RGB": "RGB", "RGBA": "RGB",
          "CMYK": "RGB", "YCbCr": "RGB"}  # fmt: skip
_MAX_FILE = 50_000_000
_SPLITS = {"train": True, "training": True, "val": False, "valid": False, "validation": False,
           "test": False, "testing": False}  # fmt: skip


@dataclass(frozen=True)
class _Found:
    name: str
    label: str
    train: bool | None


def is_image(head: bytes) -> bool:
    """Return whether a file begins as PNG, JPEG, BMP, GIF and WebP files do.

    Example:
        >>> is_image(b"GIF89a")
        True
    """
    return head.startswith(_MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def read_images(
    files: Files, name: str, max_bytes: int, size: tuple[int, int] | None = None
) -> ExampleArrays:
    """Read images whose folder is their class.

    Args:
        files: The images; above the folders of classes there may be ones called train and test.
        name: What to call them all in messages.
        max_bytes: What all may take as float32.
        size: Height and width to resize every image to; without it, all must have one size.

    Returns:
        float32 `[n, channels, height, width]` in [0, 1], of one channel if all are grey; classes
        are numbered in the order of their names.

    Raises:
        DataError: If there are no images or fewer than two classes, or one is damaged, too large,
            or of another size than the first.
    """
    found = _list(files, name)
    classes = sorted({item.label for item in found})
    if len(classes) < 2 or "" in classes:
        raise DataError(
            f"{name}: the images are in {len(classes)} folder; expected one folder per class, each "
            "with its images, such as cat/1.png and dog/1.png"
        )
    pixels, grey = _decode(files, found, name, max_bytes, size)
    if grey:
        pixels = pixels[:, :1]
    x = pixels.astype(np.float32)
    x /= 255
    y = np.array([classes.index(item.label) for item in found], np.int64)
    height, width = x.shape[2:]
    notes = [
        f"{len(x):,} {'grey' if grey else 'colour'} images of {height} × {width} in "
        f"{len(classes)} folders, one per class."
    ]
    if size is not None:
        notes.append(f"Images of other sizes were resized to {height} × {width}.")
    train = sum(item.train is True for item in found)
    split = train if 0 < train < len(found) else None
    return ExampleArrays(
        x=x,
        y=y,
        kind="classification",
        classes=len(classes),
        class_names=check_names(classes),
        notes=tuple(notes),
        split=split,
    )


def _list(files: Files, name: str) -> list[_Found]:
    found = []
    for path in files.names():
        if not is_image(files.head(path)):
            continue
        folders = path.split("/")[:-1]
        above = folders[-2].lower() if len(folders) > 1 else ""
        found.append(_Found(path, folders[-1] if folders else "", _SPLITS.get(above)))
    if not found:
        raise DataError(f"{name}: holds no images; add some (PNG, JPEG, BMP, GIF or WebP)")
    return sorted(found, key=lambda item: (item.train is not True, item.name))


def _decode(
    files: Files, found: list[_Found], name: str, max_bytes: int, size: tuple[int, int] | None
) -> tuple[NDArray[np.uint8], bool]:
    first = _open(files, found[0], name)
    height, width = size or (first.height, first.width)
    needed = 4 * 3 * height * width * len(found)
    if needed > max_bytes:
        raise DataError(
            f"{name}: {len(found):,} images of {height} × {width} take {needed:,} bytes as "
            f"float32, more than the limit of {max_bytes:,}; use fewer, or smaller ones"
        )
    pixels = np.empty((len(found), 3, height, width), np.uint8)
    grey = True
    for k, item in enumerate(found):
        image = _open(files, item, name)
        if size is None and image.size != (width, height):
            raise DataError(
                f"{name}: {item.name[-80:]!r} is {image.height} × {image.width}, and "
                f"{found[0].name[-80:]!r} is {height} × {width}; all images must have one size, or "
                "choose a size for all of them"
            )
        mode = _MODES[image.mode]
        grey = grey and mode == "L"
        pixels[k] = _array(image, mode, (height, width), item.name, name)
    return pixels, grey


def _open(files: Files, item: _Found, name: str) -> Image.Image:
    data = files.read(item.name, _MAX_FILE)
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Exception as error:  # what damage makes of the decoders is not ours to list
        raise _damaged(item.name, name, error) from error
    if image.width * image.height > MAX_PIXELS or min(image.size) < 1:
        raise DataError(
            f"{name}: {item.name[-80:]!r} states {image.height} × {image.width} pixels (limit "
            f"{MAX_PIXELS:,}); make it smaller"
        )
    if image.mode not in _MODES:
        raise DataError(
            f"{name}: {item.name[-80:]!r} has pixels of kind {image.mode}; save it with 8 bits per "
            "channel, grey or RGB"
        )
    return image


def _array(
    image: Image.Image, mode: str, size: tuple[int, int], path: str, name: str
) -> NDArray[np.uint8]:
    try:
        plain = image.convert(mode)
        if plain.size != (size[1], size[0]):
            plain = plain.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        pixels = np.asarray(plain, np.uint8)
    except Exception as error:  # as above
        raise _damaged(path, name, error) from error
    return pixels if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _damaged(path: str, name: str, error: Exception) -> DataError:
    return DataError(
        f"{name}: the image {path[-80:]!r} cannot be decoded ({str(error)[:100]}); leave it out or "
        "save it again"
    )
