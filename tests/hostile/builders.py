"""Pieces of hostile files, byte by byte, so that every number in them can lie."""

# ruff: noqa: E501 - tables, one row per file
from __future__ import annotations

import io
import json
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"
EMPTY = b"ccollections\nOrderedDict\n)R"


def zipped(entries: Mapping[str, bytes] | list[tuple[str, bytes]], packed: bool = False) -> bytes:
    """A zip file; names are written as they are, twice if they are listed twice."""
    pairs = entries.items() if isinstance(entries, Mapping) else entries
    file = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", kind) as archive:
        warnings.simplefilter("ignore")
        for name, data in pairs:
            archive.writestr(name, data)
    return file.getvalue()


def torch_zip(pickled: bytes, records: Mapping[str, bytes] | None = None, **more: bytes) -> bytes:
    """What `torch.save` writes, around any pickle."""
    entries = {"archive/data.pkl": pickled, "archive/byteorder": b"little"}
    entries |= {f"archive/{key}": data for key, data in more.items()}
    values = {"0": np.ones(3, "<f4").tobytes()} if records is None else records
    entries |= {f"archive/data/{key}": data for key, data in values.items()}
    return zipped(entries | {"archive/version": b"3\n"})


def text(value: str) -> bytes:
    """A piece of text in a pickle."""
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(n: int) -> bytes:
    """A whole number of 64 bits in a pickle."""
    return b"\x8a\x08" + struct.pack("<q", n)


def storage(key: str = "0", kind: str = "Float", place: str = "cpu", numel: int = 3) -> bytes:
    """A reference to numbers beside the pickle."""
    named = f"ctorch\n{kind}Storage\n".encode()
    return b"(" + text("storage") + named + text(key) + text(place) + number(numel) + b"tQ"


def tensor(size: int = 3, stride: int = 1, offset: int = 0, **more: object) -> bytes:
    """A tensor of one axis."""
    view = number(offset) + number(size) + b"\x85" + number(stride) + b"\x85"
    return TENSOR + b"(" + storage(**more) + view + b"\x89" + EMPTY + b"tR"


def state_dict(**values: bytes) -> bytes:
    """A pickled dict of pieces."""
    return b"\x80\x02}" + b"".join(text(k) + v + b"s" for k, v in values.items()) + b"."


def mapping(**values: bytes) -> bytes:
    """A piece: a dict of pieces."""
    return b"}" + b"".join(text(k) + v + b"s" for k, v in values.items())


def numbered(values: Mapping[int, bytes]) -> bytes:
    """A piece: a dict of pieces by whole numbers."""
    return b"}" + b"".join(number(k) + v + b"s" for k, v in values.items())


def listing(*values: bytes) -> bytes:
    """A piece: a list of pieces."""
    return b"](" + b"".join(values) + b"e"


def safetensors(header: object, payload: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with any header."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + payload


def entry(begin: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, object]:
    """A tensor in the header of a safetensors file."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def good_safetensors(*names: str) -> bytes:
    """A good file of two numbers per name."""
    header = {name: entry(8 * k, 8 * k + 8, [2]) for k, name in enumerate(names)}
    return safetensors(header, np.ones(2 * len(names), "<f4").tobytes())


def index_of(shards: Mapping[str, str]) -> bytes:
    """The index of a sharded model."""
    return json.dumps({"metadata": {}, "weight_map": dict(shards)}).encode()


def overlapping_zip(copies: int, inner: bytes, name: str = "archive/data/") -> bytes:
    """A zip file whose entries all show to one place."""
    data = bytearray(zipped({f"{name}{k:06d}": inner if k == 0 else b"" for k in range(copies)}))
    start, at = data.index(b"PK\x01\x02"), data.index(b"PK\x01\x02")
    first = bytes(data[start + 16 : start + 28]), bytes(data[start + 42 : start + 46])
    while data[at : at + 4] == b"PK\x01\x02":
        data[at + 16 : at + 28], data[at + 42 : at + 46] = first
        at += 46 + sum(struct.unpack("<HHH", data[at + 28 : at + 34]))
    return bytes(data)


def pt2(weights: Mapping[str, object] | None = None, **more: bytes) -> bytes:
    """An archive as `torch.export.save` writes it, of one weight; `more` are further entries."""
    meta = {"dtype": 7, "sizes": [{"as_int": 2}], "strides": [{"as_int": 1}]}
    good = {"w": {"path_name": "weight_0", "is_param": True, "use_pickle": False,
                  "tensor_meta": meta}}  # fmt: skip
    entries = {
        "archive/archive_format": b"pt2",
        "archive/archive_version": b"0",
        "archive/byteorder": b"little",
        "archive/models/model.json": b"{}",
        "archive/data/weights/weight_0": np.ones(2, "<f4").tobytes(),
        "archive/data/weights/model_weights_config.json": json.dumps({
            "config": good if weights is None else weights
        }).encode(),
        "archive/data/constants/model_constants_config.json": b'{"config": {}}',
    }
    return zipped(entries | {f"archive/{k}": v for k, v in more.items()})


def npy(shape: str, payload: bytes, dtype: str = "<f4") -> bytes:
    """One array with any header."""
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + payload


def idx(shape: tuple[int, ...], payload: bytes, kind: int = 8) -> bytes:
    """One idx file."""
    return bytes([0, 0, kind, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + payload


def tarred(files: Mapping[str, bytes], compression: str = "") -> bytes:
    """A tar archive, packed as `compression` says."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=f"w:{compression}") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def cifar_pickle(
    images: np.ndarray,
    labels: list[int],
    title: bytes = b"training batch 1 of 5",
    label_key: bytes = b"labels",
) -> bytes:
    """A batch as Python 2 pickled it, which is how CIFAR is published."""

    def short(raw: bytes) -> bytes:
        return b"U" + bytes([len(raw)]) + raw

    raw, (n, width) = images.tobytes(), images.shape
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\nq\x06K\x00\x85U\x01b\x87R"
        b"(K\x01J" + struct.pack("<i", n) + b"J" + struct.pack("<i", width) + b"\x86"
        b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
        b"K\x00tb\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"
    )
    numbers = b"](" + b"".join(b"K" + bytes([k]) for k in labels) + b"e"
    pairs = short(b"batch_label") + short(title) + short(label_key) + numbers
    return b"\x80\x02}q\x01(" + pairs + short(b"data") + array + b"u."


def png(width: int, height: int, words: int = 0) -> bytes:
    """A PNG that states a size and holds next to nothing, or packed text of any length."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    note = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(words))) if words else b""
    body = note + chunk(b"IDAT", zlib.compress(b"\0"))
    return b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b"")


def code_routes(marker: Path) -> dict[str, bytes]:
    """Pickles that make a folder called `marker` where they are run: every way to call something."""
    path, call = text(str(marker)), b"cos\nmkdir\n"
    ext = b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00"
    line = str(marker).encode()
    return {
        "global-reduce": b"\x80\x02" + call + path + b"\x85R.",
        "protocol-0": b"cos\nmkdir\n(V" + line + b"\ntR.",
        "protocol-1": b"cos\nmkdir\n(" + path + b"tR.",
        "stack-global": b"\x80\x04" + text("os") + text("mkdir") + b"\x93" + path + b"\x85R.",
        "stack-global-short": b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93" + path + b"\x85R.",
        "stack-global-memo": b"\x80\x04\x8c\x05mkdir\x940\x8c\x02osh\x00\x93" + path + b"\x85R.",
        "stack-global-not-text": b"\x80\x04]]\x93)R.",
        "inst": b"(" + path + b"ios\nmkdir\n.",
        "obj": b"(" + call + path + b"o.",
        "newobj": b"\x80\x02" + call + path + b"\x85\x81.",
        "newobj-ex": b"\x80\x04" + call + path + b"\x85}\x92.",
        "build-setstate": b"\x80\x02" + EMPTY + b"cos\nmkdir\nb.",
        "build-state-of-tensor": b"\x80\x02" + tensor() + path + b"b.",
        "build-slots": b"\x80\x02" + EMPTY + b"N}" + text("__class__") + call + b"s\x86b.",
        "ext1": b"\x80\x02" + ext[0] + path + b"\x85R.",
        "ext2": b"\x80\x02" + ext[1] + path + b"\x85R.",
        "ext4": b"\x80\x02" + ext[2] + path + b"\x85R.",
        "persid": b"Pcos.mkdir\n.",
        "binpersid": b"\x80\x02" + call + path + b"\x86Q.",
        "binpersid-module": b"\x80\x02(" + text("module") + call + path + b"tQ.",
        "storage-of-code": b"\x80\x02(" + text("storage") + call + text("0") + path + b"K\x03tQ.",
        "eval": b"\x80\x02c__builtin__\neval\n" + text(f"__import__('os').mkdir('{marker}')") + b"\x85R.",
        "getattr": b"\x80\x02cbuiltins\ngetattr\ncos\npath\n" + text("mkdir") + b"\x86R.",
        "dotted": b"\x80\x04\x8c\x05torch\x8c\x16serialization.os.mkdir\x93" + path + b"\x85R.",
        "torch-load": b"\x80\x02ctorch\nload\n" + path + b"\x85R.",
        "torch-hub": b"\x80\x02ctorch.hub\nload\n" + path + b"\x85R.",
        "numpy-load": b"\x80\x02cnumpy\nload\n" + path + b"\x85R.",
        "functools": b"\x80\x02cfunctools\npartial\n" + call + path + b"\x86R)R.",
        "call-of-dict": b"\x80\x02}" + path + b"\x85R.",
        "hooks": b"\x80\x02" + TENSOR + b"(" + storage() + b"K\x00K\x03\x85K\x01\x85\x89"
        + EMPTY + call + path + b"\x85RstR.",
        "after-the-tensors": state_dict(a=tensor())[:-1] + call + path + b"\x85R.",
        "as-value": state_dict(a=tensor(), b=call + path + b"\x85R"),
        "as-key": b"\x80\x02}" + call + path + b"\x85R" + tensor() + b"s.",
        "in-hyper-parameters": state_dict(
            state_dict=b"}" + text("a") + tensor() + b"s",
            hyper_parameters=b"}" + text("x") + call + path + b"\x85Rs",
        ),
        "two-pickles": b"\x80\x02}." + call + path + b"\x85R.",
        "next-buffer": b"\x80\x05\x97\x98.",
    }  # fmt: skip
