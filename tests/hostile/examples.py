"""Hostile data: each a file, the words of its refusal, and what is wrong by its name."""

# ruff: noqa: E501 - tables, one row per file
from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.hostile.builders import (
    cifar_pickle,
    code_routes,
    idx,
    npy,
    overlapping_zip,
    png,
    tarred,
    zipped,
)

Row = tuple[Callable[[], bytes], str]
PIXELS = np.zeros((2, 3072), np.uint8)


def picture(mode: str = "RGB", size: tuple[int, int] = (4, 4), form: str = "PNG") -> bytes:
    """A good image."""
    file = io.BytesIO()
    Image.new(mode, size).save(file, form)
    return file.getvalue()


def code_in_batches(marker: Path) -> dict[str, Row]:
    """Every way to call something, in a batch of CIFAR: alone, in an archive, and in a zip file."""
    rows: dict[str, Row] = {}
    for route, pickled in code_routes(marker).items():
        rows[f"batch-{route}"] = (
            (lambda p=pickled: p), "could run code|not a batch|fewer than two|fields|text",
        )  # fmt: skip
        if pickled[:1] == b"\x80":
            rows[f"tar-{route}"] = (
                (lambda p=pickled: gzip.compress(tarred({"c/data_batch_1": p}))), "not a batch",
            )  # fmt: skip
            rows[f"zip-{route}"] = (
                (lambda p=pickled: zipped({"c/data_batch_1": p})), "not a batch",
            )  # fmt: skip
    return rows


def _batch(**changes: object) -> bytes:
    return cifar_pickle(**{"images": PIXELS, "labels": [0, 1]} | changes)


def _big_tar() -> bytes:
    data = bytearray(tarred({"data_batch_1": b"\x80\x02."}))
    data[124:136] = b"77777777777\0"  # 8 GiB
    total = sum(data[:148]) + 8 * 32 + sum(data[156:512])
    data[148:156] = b"%06o\0 " % total
    return bytes(data)


def _images(**files: bytes) -> bytes:
    good = {"cat/1.png": picture(), "dog/1.png": picture()}
    return zipped(good | {f"dog/{name}.png": data for name, data in files.items()})


NPZ: dict[str, Row] = {
    "npz-object": (lambda: zipped({"x.npy": npy("(1, 1)", b"\x80\x02N.", "|O"), "y.npy": b""}),
                   "holds object"),
    "npz-bomb": (lambda: zipped(
        {"x.npy": npy("(10, 3000000)", bytes(120_000_000)), "y.npy": npy("(10,)", bytes(40))}, True),
        "far more than real data"),
    "npz-lies": (lambda: zipped({"x.npy": npy("(1000000, 1000000)", b""), "y.npy": b""}), "claims"),
    "npz-code-in-header": (lambda: zipped({"x.npy": npy("__import__('os')", b""), "y.npy": b""}),
                           "not a complete"),
    "npz-missing-y": (lambda: zipped({"x.npy": npy("(1, 1)", bytes(4))}), "lacks 'y'"),
    "npz-overlap": (lambda: overlapping_zip(300, bytes(9000), "x.npy"), "overlap"),
    "npz-0-d": (lambda: zipped({"x.npy": npy("()", bytes(4)), "y.npy": npy("(1,)", bytes(4))}),
                "no data, or not one row"),
    "tokens-negative": (lambda: zipped({"tokens.npy": npy("(2, 2)", b"\xff" * 32, "<i8")}),
                        "not token numbers: -1"),
    "tokens-floats": (lambda: zipped({"tokens.npy": npy("(2, 2)", bytes(16))}), "whole numbers"),
    "tokens-one": (lambda: zipped({"tokens.npy": npy("(1,)", bytes(8), "<i8")}), "at least two"),
    "tokens-huge": (lambda: zipped({"tokens.npy": npy("(2,)", b"\x7f" * 16, "<i8")}), "not token num"),
    "one-array": (lambda: npy("(2, 2)", bytes(16)), "this is one array"),
}  # fmt: skip

IMAGES: dict[str, Row] = {
    "image-bomb": (lambda: _images(b=png(60_000, 60_000)), r"states 60000 × 60000|cannot be decoded"),
    "image-bomb-first": (lambda: zipped({"a/1.png": png(4900, 4900), "b/1.png": png(4900, 4900)}),
                         "as float32, more than the limit|cannot be decoded"),
    "image-bomb-packed": (lambda: _images(b=png(4, 4, words=90_000_000)), "cannot be decoded"),
    "image-cut": (lambda: zipped({
        "a/1.png": picture(size=(64, 64))[:60], "b/1.png": picture(size=(64, 64))}), "cannot be decoded"),
    "image-other-size": (lambda: _images(b=picture(size=(5, 4))), "is 4 × 5, and 'cat/1.png' is 4 × 4"),
    "image-16-bit": (lambda: _images(b=picture("I;16")), "pixels of kind I;16"),
    "image-alone": (picture, "this is one image"),
    "image-one-class": (lambda: zipped({"a/1.png": picture()}), "one folder per class"),
    "image-no-class": (lambda: zipped({"1.png": picture(), "a/2.png": picture()}), "one folder per"),
    "image-paths": (lambda: zipped({"../a/1.png": picture(), "b/1.png": picture()}), "like a path"),
    "image-zeros": (lambda: _images(b=png(0, 0)), "cannot be decoded|states"),
    "image-too-many": (lambda: zipped({f"a/{k}": b"" for k in range(100_001)}), "too many entries"),
    "image-zip-bomb": (lambda: zipped(
        {"a/1.png": picture() + bytes(40_000_000), "b/1.png": picture()}, True), "far more than"),
}  # fmt: skip

CIFAR: dict[str, Row] = {
    "cifar-too-few-labels": (lambda: _batch(labels=[1]), "2 images and 1 labels"),
    "cifar-wrong-width": (lambda: _batch(images=PIXELS[:, :100]), "where .n, 3072. of uint8"),
    "cifar-size-lies": (lambda: _batch().replace(b"J\x02\0\0\0", b"J\xff\xff\xff\x7f"),
                        "does not have the size"),
    "cifar-dtype-object": (lambda: _batch().replace(b"U\x02u1", b"U\x02O8"), "small whole numbers"),
    "cifar-no-labels": (lambda: _batch(label_key=b"lobels"), "no list 'labels'"),
    "cifar-cut": (lambda: _batch()[:900], "not a batch of CIFAR"),
    "cifar-no-dict": (lambda: b"\x80\x02].", "it is not a dict"),
    "cifar-deep": (lambda: b"\x80\x02" + b"]" * 290_000 + b"a" * 289_999 + b".", "it is not a dict"),
    "cifar-endless": (lambda: b"\x80\x02" + b"}" * 3_000_000 + b".", "steps"),
    "tar-empty": (lambda: tarred({"readme": b"hello"}), "no batches of CIFAR"),
    "tar-cut": (lambda: gzip.compress(tarred({"b": _batch()}))[:-40], "damaged or cut|cut short"),
    "tar-of-gigabytes": (_big_tar, "more than a batch has|damaged"),
    "tar-many": (lambda: tarred({f"{k}": b"" for k in range(1100)}), "more than 1000 files"),
    "tar-bomb": (lambda: gzip.compress(tarred({"b": bytes(100_000_000)})), "far more than it takes"),
    "gzip-bomb": (lambda: gzip.compress(bytes(200_000_000)), "far more than it takes"),
    "gzip-twice": (lambda: gzip.compress(gzip.compress(b"1,2\n3,4\n")), "packed twice"),
    "gzip-cut": (lambda: gzip.compress(b"1,2\n" * 5000)[:-9], "damaged or cut short"),
}  # fmt: skip

IDX: dict[str, Row] = {
    "idx-count": (lambda: idx((10, 28, 28), bytes(100)), r"states shape \[10, 28, 28\], 7,840 bytes"),
    "idx-huge": (lambda: idx((2**32 - 1,) * 4, b""), "states shape"),
    "idx-cut": (lambda: idx((10, 28, 28), b"")[:9], "cut short"),
    "idx-alone": (lambda: idx((2, 2, 2), bytes(8)), "images and labels are needed"),
    "idx-without-labels": (lambda: zipped({"images": idx((2, 2, 2), bytes(8))}),
                           "1 idx files hold images and 0 hold labels"),
    "idx-labels-short": (lambda: zipped({"i": idx((2, 2, 2), bytes(8)), "l": idx((3,), bytes(3))}),
                         "one label per image"),
    "idx-empty": (lambda: zipped({"i": idx((0, 2, 2), b""), "l": idx((0,), b"")}), "no images"),
    "idx-negative": (lambda: zipped(
        {"i": idx((1, 2, 2), bytes(4)), "l": idx((1,), b"\xff", 9)}), "whole numbers from 0"),
    "idx-gzip-bomb": (lambda: zipped({
        "i": gzip.compress(idx((1, 10_000, 10_000), bytes(100_000_000))),
        "l": idx((1,), b"\0")}), "far more than it takes"),
}  # fmt: skip

TABLES: dict[str, Row] = {
    "csv-million-columns": (lambda: b"1," * 1_000_000 + b"1\n1,2\n", "1,000,001 fields"),
    "csv-one-line-of-5-MB": (lambda: b"1" * 5_000_000, "more than 4,000,000 characters"),
    "csv-one-line": (lambda: b"1,2,3\n", "fewer than two lines"),
    "csv-one-column": (lambda: b"1\n2\n", "1 fields; expected between 2"),
    "csv-ragged": (lambda: b"1,2,3\n1,2\n", "row 2 has 2 fields, and the first has 3"),
    "csv-text": (lambda: b"a,b,y\n1,cat,0\n", "column 'b' of row 2 holds 'cat'"),
    "csv-missing": (lambda: b"a,b,y\n1,2,0\n1,,0\n", "column 'b' of row 3 is empty"),
    "csv-nan": (lambda: b"1,2,0\nnan,2,1\ninf,2,1\n", "2 rows hold NaN.* the first of them row 2"),
    "csv-too-large": (lambda: b"1,2,0\n1e300,2,1\n", "1 rows hold NaN, infinity or"),
    "csv-negative-label": (lambda: b"1,2,a\n1,2,\n", "none empty"),
    "csv-many-texts": (lambda: b"".join(b"1,t%d\n" % k for k in range(1500)), "1,500 different texts"),
    "csv-open-quote": (lambda: b'1,2\n"' + b"1,2\n" * 200_000, "not a row of a table"),
    "csv-nul": (lambda: b"1,2\n\0,3\n", "are not text"),
    "not-text": (lambda: np.random.default_rng(0).bytes(5000), "neither data of a kind"),
    "empty": (lambda: b"", "the file is empty"),
    "executable": (lambda: b"\x7fELF" + struct.pack("<Q", 1 << 60) * 20, "neither|not text"),
    "zip-of-nothing": (lambda: zipped({"a.txt": b"", "b.txt": b""}), "no data that are known"),
}  # fmt: skip
