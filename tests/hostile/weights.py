"""Hostile checkpoints: each a file, the words of its refusal, and what is wrong by its name."""

# ruff: noqa: E501 - tables, one row per file
from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.hostile.builders import (
    EMPTY,
    TENSOR,
    code_routes,
    entry,
    good_safetensors,
    index_of,
    listing,
    mapping,
    npy,
    number,
    numbered,
    overlapping_zip,
    pt2,
    safetensors,
    state_dict,
    storage,
    tensor,
    text,
    torch_zip,
    zipped,
)

Row = tuple[Callable[[], bytes], str]
NAN = np.full(2, np.nan, "<f4").tobytes()
DAMAGED = "safetensors file is damaged"
ONES = np.ones(3, "<f4").tobytes()
CODE = "could run code|data.pkl is damaged|holds no tensors|not a dict of tensors"


def code_in_checkpoints(marker: Path) -> dict[str, Row]:
    """Every way to call something, in a PyTorch file."""
    return {
        f"code-{route}": ((lambda p=pickled: torch_zip(p)), CODE)
        for route, pickled in code_routes(marker).items()
    }


def plain_pickles(marker: Path) -> dict[str, Row]:
    """The same pickles, without a zip file around them."""
    return {
        f"plain-{route}": ((lambda p=pickled: p), "plain pickle|neither a safetensors")
        for route, pickled in code_routes(marker).items()
    }


def _special(name: str) -> bytes:
    return state_dict(a=f"ctorch._utils\n{name}\n".encode() + b"(" + storage() + b"tR")


def _meta_path() -> bytes:
    return torch_zip(state_dict(a=tensor(place="x" * 100)), {})


TORCH: dict[str, Row] = {
    "deep-tuples": (lambda: torch_zip(b"\x80\x02)" + b"\x85" * 590_000 + b"."), "not a dict"),
    "deep-lists": (lambda: torch_zip(b"\x80\x02" + b"]" * 290_000 + b"a" * 289_999 + b"."),
                   "not a dict"),
    "deep-dicts": (lambda: torch_zip(b"\x80\x02" + b"}N" * 190_000 + b"}" + b"s" * 190_000 + b"."),
                   "name is NoneType"),
    "memo-doubling": (lambda: torch_zip(b"\x80\x02)q\x00" + b"h\x00h\x00\x86q\x00" * 9000 + b"."),
                      "not a dict"),
    "memo-list-bomb": (lambda: torch_zip(b"\x80\x02]q\x00" + b"(" + b"h\x00" * 400_000 + b"e."),
                       "not a dict"),
    "memo-of-itself": (lambda: torch_zip(b"\x80\x02}q\x00X\x05\0\0\0modelh\x00s."), "a dict|is dict"),
    "endless-steps": (lambda: torch_zip(b"\x80\x02" + b"}" * 2_000_000 + b"."), "steps"),
    "many-marks": (lambda: torch_zip(b"\x80\x02" + b"(" * 2_000_000 + b"."), "nested too deep"),
    "huge-pickle": (lambda: torch_zip(b"\x80\x02" + b"N" * 9_000_000 + b"."), "limit of 8,000,000"),
    "huge-number": (lambda: torch_zip(b"\x80\x02\x8b" + struct.pack("<i", 10**6) + b"1" * 10**6),
                    "a whole number in it has"),
    "text-of-gigabytes": (lambda: torch_zip(b"\x80\x02\x8d" + struct.pack("<Q", 1 << 40) + b"a."),
                          "data.pkl is damaged"),
    "text-of-negative-length": (lambda: torch_zip(b"\x80\x02T" + struct.pack("<i", -5) + b"a."),
                                "data.pkl is damaged"),
    "colliding-keys": (lambda: torch_zip(b"\x80\x02}(" + b"".join(
        b"\x8a\x0c" + (k * (2**61 - 1)).to_bytes(12, "little") + b"N" for k in range(1, 60_000)
    ) + b"u."), "holds no tensors"),
    "no-stop": (lambda: torch_zip(b"\x80\x02}"), "data.pkl is damaged"),
    "empty-pickle": (lambda: torch_zip(b""), "data.pkl is damaged"),
    "not-a-pickle": (lambda: torch_zip(b"hello"), "data.pkl is damaged"),
    "bad-utf8": (lambda: torch_zip(b"\x80\x02X\x02\0\0\0\xff\xfe."), "data.pkl is damaged"),
    "sparse": (lambda: torch_zip(_special("_rebuild_sparse_tensor")), "is sparse"),
    "quantised": (lambda: torch_zip(_special("_rebuild_qtensor")), "is quantised"),
    "nested": (lambda: torch_zip(_special("_rebuild_nested_tensor")), "is nested"),
    "meta-device": (lambda: torch_zip(_special("_rebuild_meta_tensor_no_storage")), "'meta'"),
    "own-class": (lambda: torch_zip(_special("_rebuild_from_type_v2")), "class of its own"),
    "complex": (lambda: torch_zip(state_dict(a=tensor(kind="ComplexFloat", numel=1, size=1))),
                "dtype torch.complex64"),
    "wrapped-storage": (lambda: torch_zip(state_dict(a=TENSOR + b"(K\x01K\x00K\x03\x85K\x01\x85tR")),
                        "unusual arguments"),
    "storage-by-path": (lambda: torch_zip(state_dict(a=tensor(key="../../../etc/passwd"))),
                        "has no values in the file"),
    "storage-is-the-pickle": (lambda: torch_zip(state_dict(a=tensor(key="../data.pkl"))),
                              "has no values in the file"),
    "storage-missing": (lambda: torch_zip(state_dict(a=tensor(key="7"))), "has no values"),
    "storage-of-a-terabyte": (lambda: torch_zip(state_dict(a=tensor(numel=1 << 40))), "claims|has"),
    "view-of-a-terabyte": (lambda: torch_zip(state_dict(a=tensor(size=1 << 40, stride=0))), "claims"),
    "view-past-the-end": (lambda: torch_zip(state_dict(a=tensor(offset=2))), "claims"),
    "view-far-apart": (lambda: torch_zip(state_dict(a=tensor(stride=1 << 50))), "claims"),
    "view-backwards": (lambda: torch_zip(state_dict(a=tensor(stride=-1))), "unusual arguments"),
    "many-views": (lambda: torch_zip(
        state_dict(**{f"w{k}": tensor(size=250_000, numel=250_000) for k in range(1500)}),
        {"0": bytes(1_000_000)}), "tensors take 1,500,000,000 bytes"),
    "nine-axes": (lambda: torch_zip(state_dict(
        a=TENSOR + b"(" + storage() + b"K\x00(" + b"K\x01" * 9 + b"t(" + b"K\x01" * 9 + b"t\x89"
        + EMPTY + b"tR")), "has 9 axes"),
    "name-of-10-kB": (lambda: torch_zip(state_dict(**{"ю" * 5000: tensor()})),
                      "has a name of 5,000 characters"),
    "nan-everywhere": (lambda: torch_zip(state_dict(a=tensor(numel=2, size=2)), {"0": NAN}),
                       r"not finite: 'a' \(2 NaN"),
    "too-many-tensors": (lambda: torch_zip(
        b"\x80\x02}" + tensor() + b"q\x090" + b"".join(
            text(f"{k}") + b"h\x09s" for k in range(20_001)) + b"."), "more than the limit of 20,000"),
    "big-endian": (lambda: zipped({"archive/data.pkl": b"\x80\x02}.", "archive/byteorder": b"big"}),
                   "big-endian"),
    "torchscript": (lambda: torch_zip(state_dict(a=tensor()), **{"code/a.py": b"import os"}),
                    "TorchScript"),
    "exported-program": (pt2, "exported program"),
}  # fmt: skip

SAFE: dict[str, Row] = {
    "header-of-gigabytes": (lambda: safetensors(b"{", b"", 60_000_000), "cut short: its header"),
    "header-of-exabytes": (lambda: struct.pack("<Q", 1 << 62) + b"{}", "neither a safetensors"),
    "header-too-long": (lambda: safetensors(b"{" + b" " * 6_000_000 + b"}"), "more than 20,000 ten"),
    "header-of-dicts": (lambda: safetensors(b'{"a":[' + b"{}," * 1_600_000 + b"{}]}"),
                        "listed without a dtype"),
    "header-deep": (lambda: safetensors(b'{"a":' * 100_000), "header .* is damaged"),
    "header-long-number": (lambda: safetensors(b'{"a":' + b"9" * 5000 + b"}"), "header .* damaged"),
    "header-not-utf8": (lambda: safetensors(b'{"\xff":1}'), "header .* is damaged"),
    "header-is-a-list": (lambda: safetensors(b'{"__metadata__":[]}'), "header .* is damaged"),
    "duplicate-names": (lambda: safetensors(
        b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', bytes(8)), "'w' is listed twice"),
    "overlap": (lambda: safetensors({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, bytes(12)),
                DAMAGED),
    "same-bytes": (lambda: safetensors({"a": entry(0, 8, [2]), "b": entry(0, 8, [2])}, bytes(8)),
                   DAMAGED),
    "hole": (lambda: safetensors({"a": entry(4, 12, [2])}, bytes(12)), DAMAGED),
    "past-the-end": (lambda: safetensors({"a": entry(0, 800, [200])}, bytes(8)), DAMAGED),
    "bytes-left-over": (lambda: safetensors({"a": entry(0, 8, [2])}, bytes(800)), DAMAGED),
    "backwards": (lambda: safetensors({"a": entry(8, 0, [2])}, bytes(8)), DAMAGED),
    "negative-offset": (lambda: safetensors({"a": entry(-8, 0, [2])}, bytes(8)), DAMAGED),
    "negative-size": (lambda: safetensors({"a": entry(0, 8, [-1, -2])}, bytes(8)), DAMAGED),
    "size-is-true": (lambda: safetensors({"a": entry(0, 4, [True])}, bytes(4)), DAMAGED),
    "size-is-a-float": (lambda: safetensors({"a": entry(0, 8, [2.0])}, bytes(8)), DAMAGED),
    "huge-size": (lambda: safetensors({"a": entry(0, 8, [1 << 61, 1 << 61])}, bytes(8)), DAMAGED),
    "size-overflows-to-fit": (lambda: safetensors({"a": entry(0, 0, [1 << 32, 1 << 32])}), DAMAGED),
    "many-axes": (lambda: safetensors({"a": entry(0, 4, [1] * 1000)}, bytes(4)), "1000 axes"),
    "unknown-dtype": (lambda: safetensors({"a": entry(0, 4, [4], "F8_E4M3")}, bytes(4)),
                      "dtype F8_E4M3"),
    "complex-dtype": (lambda: safetensors({"a": entry(0, 8, [1], "C64")}, bytes(8)), "dtype C64"),
    "name-in-10-kB": (lambda: safetensors({"名" * 3400: entry(0, 4, [1])}, bytes(4)),
                      "name of 3,400 characters"),
    "nan-everywhere-too": (lambda: safetensors({"a": entry(0, 8, [2])}, NAN), "2 NaN"),
    "infinite-halves": (lambda: safetensors({"a": entry(0, 2, [1], "F16")}, b"\x00\x7c"),
                        "1 infinite"),
    "without-offsets": (lambda: safetensors({"a": {"dtype": "F32", "shape": [1]}}, bytes(4)),
                        DAMAGED),
    "only-metadata": (lambda: safetensors({"__metadata__": {"a": "b"}}), "holds no tensors"),
}  # fmt: skip


def _bomb(name: str, mb: int) -> bytes:
    return zipped({name: bytes(mb * 1_000_000)}, packed=True)


def _patched(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new)


def _nameless() -> bytes:
    data = bytearray(zipped({"x": b"", "m.safetensors": good_safetensors("w")}))
    at = data.index(b"PK\x01\x02")
    data[at + 28 : at + 32] = b"\0\0\1\0"  # its name becomes an extra field
    return bytes(data)


def _quine() -> bytes:
    data = b"PK"
    for _ in range(12):
        data = zipped({"r.zip": data}, packed=True)
    return data


ZIPS: dict[str, Row] = {
    "ratio-bomb": (lambda: _bomb("model.safetensors", 150), "far more than real data"),
    "ratio-bomb-torch": (lambda: zipped(
        {"archive/data.pkl": state_dict(a=tensor()), "archive/data/0": bytes(100_000_000)}, True),
        "is compressed"),
    "quine-like": (_quine, "no weights are in it"),
    "overlapping": (lambda: overlapping_zip(500, bytes(100_000)), "entries of the zip file overlap"),
    "many-entries": (lambda: zipped({f"{k}": b"" for k in range(81_000)}), "too many entries"),
    "declares-a-terabyte": (lambda: _patched(
        zipped({"model.safetensors": b"abcd" * 5}), struct.pack("<II", 20, 20),
        struct.pack("<II", 0xFFFFFFF0, 0xFFFFFFF0)), "more than the limit|damaged"),
    "parent-path": (lambda: zipped({"../model.safetensors": good_safetensors("w")}),
                    "named like a path to somewhere else"),
    "inner-parent-path": (lambda: zipped({"a/../../m.safetensors": b""}), "named like a path"),
    "absolute-path": (lambda: zipped({"/etc/model.safetensors": b""}), "named like a path"),
    "drive-path": (lambda: zipped({"C:/model.safetensors": b""}), "named like a path"),
    "backslash-path": (lambda: zipped({"..\\model.safetensors": b""}), "named like a path"),
    "duplicate-entries": (lambda: zipped([("m.safetensors", b"a"), ("m.safetensors", b"b")]),
                          "two entries have one name"),
    "nameless": (_nameless, "has no name"),
    "encrypted": (lambda: _patched(
        zipped({"m.safetensors": good_safetensors("w")}), b"PK\x01\x02\x14\x03\x14\x00\x00\x00",
        b"PK\x01\x02\x14\x03\x14\x00\x01\x00"), "encrypted"),
    "no-weights": (lambda: zipped({"config.json": b"{}"}), "no weights are in it, only 'config"),
    "two-models": (lambda: zipped({"a/m.safetensors": b"", "b/m.safetensors": b""}),
                   "several folders in the zip file"),
    "which-of-three": (lambda: zipped({f"{k}.safetensors": good_safetensors("w") for k in "abc"}),
                       "3 files could be the weights"),
    "zip-in-zip": (lambda: zipped({"model.bin": zipped({"model.bin": b"x"})}), "not written by"),
    "pickle-in-zip": (lambda: zipped({"pytorch_model.bin": b"\x80\x02cos\nmkdir\n."}),
                      "plain pickle"),
    "numpy-arrays": (lambda: zipped({"x.npy": npy("(1,)", bytes(4))}), "no weights are in it"),
    "cut-off": (lambda: zipped({"model.safetensors": good_safetensors("w")})[:-4], "damaged or cut"),
    "bad-crc": (lambda: _patched(
        zipped({"model.safetensors": good_safetensors("wxyz")}, packed=True),
        b"wxyz"[:0] or struct.pack("<H", 8), struct.pack("<H", 7)), "unusual way|damaged"),
}  # fmt: skip


def _sharded(shards: dict[str, str], **files: bytes) -> bytes:
    return zipped({"m/model.safetensors.index.json": index_of(shards), **{
        f"m/{name}.safetensors": data for name, data in files.items()}})  # fmt: skip


A, B = "a.safetensors", "b.safetensors"
SHARDS: dict[str, Row] = {
    "shard-missing": (lambda: _sharded({"v": A, "w": B}, a=good_safetensors("v")),
                      "1 of 2 shards are missing: 'b.safetensors'"),
    "shard-outside": (lambda: _sharded({"v": "../../secret.safetensors"}), "not a file beside it"),
    "shard-absolute": (lambda: _sharded({"v": "/etc/passwd"}), "not a file beside it"),
    "shard-backslash": (lambda: _sharded({"v": "..\\x.safetensors"}), "not a file beside it"),
    "shard-is-the-folder": (lambda: _sharded({"v": ".."}), "not a file beside it"),
    "shard-is-the-index": (lambda: _sharded({"v": "model.safetensors.index.json"}),
                           "neither a safetensors|this is text"),
    "listed-twice": (lambda: zipped({"model.safetensors.index.json": (
        b'{"weight_map": {"v": "a.safetensors", "v": "b.safetensors"}}')}), "'v' is listed twice"),
    "held-twice": (lambda: _sharded(
        {"v": A, "w": B}, a=good_safetensors("v"), b=good_safetensors("w", "v")),
        "tensor 'v' is in 'a.safetensors' and again in 'b.safetensors'"),
    "not-where-listed": (lambda: _sharded(
        {"v": A, "w": B}, a=good_safetensors("w"), b=good_safetensors("v")),
        "2 tensors are not in the file"),
    "index-no-json": (lambda: zipped({"model.safetensors.index.json": b"{" * 90_000}), "is damaged"),
    "index-without-map": (lambda: zipped({"model.safetensors.index.json": b"[]"}), "no 'weight_map'"),
    "index-of-numbers": (lambda: zipped(
        {"model.safetensors.index.json": b'{"weight_map": {"v": 3}}'}), "no 'weight_map'"),
    "index-too-long": (lambda: zipped({"model.safetensors.index.json": b" " * 5_000_001}),
                       "more than 5,000,000 bytes"),
    "index-of-1000-files": (lambda: _sharded({f"v{k}": f"{k}.safetensors" for k in range(1000)}),
                            "names 1,000 files"),
    "index-alone": (lambda: index_of({"v": A}), "zip it with its shards"),
}  # fmt: skip


BETAS = b"G" + struct.pack(">d", 0.9) + b"G" + struct.pack(">d", 0.999) + b"\x86"


def _group(*numbers: bytes, **more: bytes) -> bytes:
    """One group of Adam's; 0 is listed unless others are."""
    return mapping(params=listing(*(numbers or (number(0),))), **{"betas": BETAS, **more})


def _entry(**more: bytes) -> bytes:
    """What Adam remembers of one parameter of three numbers."""
    return mapping(**{"step": number(5), "exp_avg_sq": tensor(), **more})


def _adam(state: bytes | None = None, groups: bytes | None = None, **more: bytes) -> bytes:
    """A checkpoint of a model with one parameter, and the state of its optimizer."""
    optimizer = mapping(
        state=numbered({0: _entry()}) if state is None else state,
        param_groups=listing(_group()) if groups is None else groups,
    )
    return torch_zip(state_dict(**{"model": mapping(w=tensor()), "optimizer": optimizer, **more}))


def _one(**more: bytes) -> bytes:
    return _adam(numbered({0: _entry(**more)}))


def good_adam() -> bytes:
    """What the hostile ones are close to."""
    return _adam()


UNWRITTEN = "optimizer's state is damaged, or not as PyTorch writes it"
ADAM: dict[str, Row] = {
    "adam-state-is-a-list": (lambda: _adam(b"]"), UNWRITTEN),
    "adam-groups-are-a-dict": (lambda: _adam(groups=b"}"), UNWRITTEN),
    "adam-group-is-a-number": (lambda: _adam(groups=listing(number(3))), "does not list its param"),
    "adam-group-is-itself": (lambda: _adam(groups=b"]q\x07h\x07a"), "does not list its param"),
    "adam-params-are-a-tensor": (lambda: _adam(groups=listing(mapping(params=tensor()))),
                                 "does not list its parameters"),
    "adam-params-hold-themselves": (lambda: _adam(groups=listing(mapping(
        params=b"]q\x07h\x07a", betas=BETAS))), "not a whole number"),
    "adam-params-a-million-times": (lambda: _adam(groups=listing(mapping(
        params=b"](" + b"K\x00" * 250_000 + b"e", betas=BETAS))), "lists more than 20,000"),
    "adam-groups-all-the-same": (lambda: _adam(groups=_group(*[number(k) for k in range(900)])
        + b"q\x070](" + b"h\x07" * 100_000 + b"e"), "lists more than 20,000"),
    "adam-huge-index": (lambda: _adam(groups=listing(_group(number(1 << 39)))), "much too large"),
    "adam-negative-index": (lambda: _adam(groups=listing(_group(number(-1)))), "not a whole number"),
    "adam-index-is-true": (lambda: _adam(groups=listing(_group(b"\x88"))), "not a whole number"),
    "adam-listed-twice": (lambda: _adam(groups=listing(_group(), _group())), "listed twice"),
    "adam-not-listed": (lambda: _adam(numbered({0: _entry(), 7: _entry()})), "no group lists 7"),
    "adam-remembers-a-number": (lambda: _adam(numbered({0: number(3)})), "parameter 0 is not a dict"),
    "adam-remembers-itself": (lambda: _adam(b"}q\x07" + number(0) + b"h\x07s"), "is not Adam"),
    "adam-squares-are-text": (lambda: _one(exp_avg_sq=text("x")), "is not a floating tensor"),
    "adam-squares-are-whole": (lambda: _one(exp_avg_sq=tensor(kind="Long", numel=1, size=1)),
                               "is not a floating tensor"),
    "adam-squares-of-a-terabyte": (lambda: _one(exp_avg_sq=tensor(numel=1 << 40)), "claims|has"),
    "adam-squares-expanded": (lambda: _one(exp_avg_sq=tensor(size=1 << 40, stride=0)), "claims"),
    "adam-squares-missing": (lambda: _one(exp_avg_sq=tensor(key="9")), "has no values in the file"),
    "adam-squares-of-another-shape": (lambda: _one(exp_avg_sq=tensor(size=2)), "cannot be matched"),
    "adam-step-zero": (lambda: _one(step=number(0)), "taken over 0 steps"),
    "adam-step-negative": (lambda: _one(step=number(-3)), "taken over -3 steps"),
    "adam-step-nan": (lambda: _one(step=b"G" + struct.pack(">d", float("nan"))), "over nan steps"),
    "adam-step-is-text": (lambda: _one(step=text("3")), "is not a number"),
    "adam-step-is-missing": (lambda: _one(step=b"N"), "is not a number"),
    "adam-step-is-a-vector": (lambda: _one(step=tensor()), "is not one number"),
    "adam-step-tensor-of-zero": (lambda: torch_zip(state_dict(
        model=mapping(w=tensor()), optimizer=mapping(
            state=numbered({0: _entry(step=tensor(key="1", numel=1, size=1))}),
            param_groups=listing(_group()))), {"0": ONES, "1": bytes(4)}), "taken over 0.0 steps"),
    "adam-beta-is-one": (lambda: _adam(groups=listing(_group(
        betas=number(0) + number(1) + b"\x86"))), "no second beta"),
    "adam-beta-is-a-tensor": (lambda: _adam(groups=listing(_group(
        betas=number(0) + tensor() + b"\x86"))), "no second beta"),
    "adam-without-betas": (lambda: _adam(groups=listing(mapping(params=listing(number(0))))),
                           "no second beta"),
    "adam-names-too-few": (lambda: _adam(groups=listing(_group(param_names=listing()))),
                           "does not name each"),
    "adam-names-a-stranger": (lambda: _adam(groups=listing(_group(
        param_names=listing(text("x" * 100_000))))), "which the model has not"),
    "adam-is-nobody": (lambda: _adam(optimizer=text("adam")), "no state of an optimizer"),
}  # fmt: skip


def _pickled_constant(path: str) -> bytes:
    config = {"config": {"c": {"path_name": path, "is_param": False, "use_pickle": True,
                               "tensor_meta": None}}}  # fmt: skip
    return pt2(**{"data/constants/model_constants_config.json": json.dumps(config).encode(),
                  f"data/constants/{path}": b"\x80\x02cos\nmkdir\n."})  # fmt: skip


PT2: dict[str, Row] = {
    "pt2-pickled-tensor": (lambda: _pickled_constant("tensor_0"), "'c' in .* are pickled"),
    "pt2-custom-object": (lambda: _pickled_constant("custom_obj_0"), "a pickled object"),
    "pt2-opaque-object": (lambda: _pickled_constant("opaque_obj_0"), "a pickled object"),
    "pt2-pickled-weight": (lambda: pt2({"w": {"path_name": "weight_0", "use_pickle": True}}),
                           "'w' in .* are pickled"),
    "pt2-truthy-pickle": (lambda: pt2({"w": {"path_name": "weight_0", "use_pickle": 1,
                                             "tensor_meta": {}}}), "are pickled"),
    "pt2-legacy-weights": (lambda: pt2(**{"data/weights/model.pt": b"PK"}), "weights are pickled"),
    "pt2-legacy-constants": (lambda: pt2(**{"data/constants/model.pt": b"PK"}), "are pickled"),
    "pt2-weight-outside": (lambda: pt2({"w": {"path_name": "../../../etc/passwd",
                                              "use_pickle": False, "tensor_meta": {}}}),
                           "are not in the archive"),
    "pt2-compiled": (lambda: pt2(**{"data/aotinductor/model/a.so": b"ELF"}), "compiled code"),
    "pt2-config-damaged": (lambda: pt2(**{"data/weights/model_weights_config.json": b"[[["}),
                           "is damaged"),
    "pt2-config-no-dict": (lambda: pt2(**{"data/weights/model_weights_config.json": b"[1]"}),
                           "is damaged"),
    "pt2-packed": (lambda: zipped({"a/archive_format": b"pt2", "a/x": bytes(99)}, True),
                   "archive is compressed"),
    "pt2-two-roots": (lambda: zipped({"a/archive_format": b"pt2", "b/archive_format": b"pt2"}),
                      "not an archive"),
}  # fmt: skip
