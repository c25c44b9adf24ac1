"""Checkpoint files: read with care, written whole, told apart by content.

A checkpoint may come from a stranger. Its kind is found from its bytes, never from its name, and
its directory is checked before any weight takes up memory: sizes, counts, compression, names.
Of a PyTorch file only tensors and plain values are ever built (`weights_only=True`, and before it
a list of the few globals that such a file needs); nothing here falls back to unpickling.
A tensor is first built without memory, so that a view of a terabyte on four bytes is found by
its shape. Every error is a `CheckpointError` that names the file as the user knows it.
"""

import hashlib
import io
import json
import math
import os
import pickletools
import struct
import sys
import uuid
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from merging.errors import CheckpointError, StoreError
from merging.params import Params, floating


@dataclass(frozen=True)
class Limits:
    """The most that a checkpoint may hold.

    Attributes:
        max_bytes: Size of the file, and of its weights in memory, in bytes.
        max_tensors: Number of tensors.
        max_name: Length of a tensor's name, in characters.
        max_dims: Number of axes of a tensor.
    """

    max_bytes: int = 2_000_000_000
    max_tensors: int = 20_000
    max_name: int = 512
    max_dims: int = 8


DEFAULT_LIMITS = Limits()

_SAFE_DTYPES = {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"}
_DTYPES = {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool}
_DTYPES |= {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8}
_STORAGES = "Double Float Half BFloat16 Long Int Short Char Byte Bool ComplexDouble ComplexFloat"
_GLOBALS = {f"torch.{kind}Storage" for kind in _STORAGES.split()}
_GLOBALS |= {str(value) for value in vars(torch).values() if isinstance(value, torch.dtype)}
_REBUILDS = {
    "torch._utils._rebuild_sparse_tensor": "is sparse; save its to_dense()",
    "torch._utils._rebuild_qtensor": "is quantised; save its dequantize()",
    "torch._utils._rebuild_nested_tensor": "is nested; save plain tensors",
    "torch._utils._rebuild_tensor_v3": "has a dtype that cannot be merged; save it as float32",
}
_ARGUMENTS = {
    "torch._utils._rebuild_tensor_v2": ("tuple",),
    "torch._utils._rebuild_parameter": ("tuple",),
    "collections.OrderedDict": ("",),
    "collections.Counter": ("", "(dict,)"),
    "torch.Size": ("",),
    "torch.device": ("",),
}
_GLOBALS |= set(_ARGUMENTS)
_OBJECTS = {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}
_WRAPPERS = ("module.", "_orig_mod.")
_KEYS = (
    "state_dict", "model_state_dict", "model_state", "model", "params", "parameters", "weights",
    "net", "network", "module", "ema_state_dict", "ema",
)  # fmt: skip
_HOW_TO_SAVE = "save it with torch.save(model.state_dict(), path) or as safetensors"
_MAX_HEADER = 100_000_000
_MAX_PICKLE = 8_000_000
_MAX_NESTING = 100
_SHOWN = 5


def read_checkpoint(
    path: str | os.PathLike[str],
    *,
    limits: Limits = DEFAULT_LIMITS,
    require_finite: bool = True,
) -> tuple[Params, dict[str, str]]:
    """Read the weights in a safetensors or PyTorch zip file, whatever its name.

    A state dict inside a larger dict (under "state_dict", "model", …) is found, and the wrappers'
    prefixes `module.` and `_orig_mod.` are cut off when all names have them.

    Args:
        path: A file on this machine.
        limits: The most it may hold.
        require_finite: Whether NaN or infinity in the weights is an error.

    Returns:
        The tensors: on the CPU, contiguous, in the dtypes of the file, none sharing memory; and
        notes: `format`, `dtypes`, where they apply `found_under`, `ignored` and
        `stripped_prefix`, and the metadata of a safetensors file.

    Raises:
        CheckpointError: If the file is missing, damaged, of another kind, over the limits, holds
            anything but tensors, or could run code.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"module.weight": torch.ones(2)}, f"{folder}/model.pt")
        ...     params, meta = read_checkpoint(f"{folder}/model.pt")
        >>> params["weight"].tolist(), meta["stripped_prefix"]
        ([1.0, 1.0], 'module.')
    """
    path = Path(path)
    try:
        if not path.exists():
            raise CheckpointError(f"{path.name}: there is no such file; check the path")
        if not path.is_file():
            raise CheckpointError(f"{path.name}: this is not a file; choose one checkpoint file")
        with path.open("rb") as file:
            return _read(file, path.name, limits, require_finite)
    except OSError as error:
        raise CheckpointError(f"{path.name}: the file cannot be read ({error.strerror})") from error


def read_checkpoint_bytes(
    data: bytes,
    name: str,
    *,
    limits: Limits = DEFAULT_LIMITS,
    require_finite: bool = True,
) -> tuple[Params, dict[str, str]]:
    """Read a checkpoint that was uploaded; as `read_checkpoint`, from bytes.

    Args:
        data: The whole file.
        name: What to call it in messages; never used as a path.
        limits: The most it may hold.
        require_finite: Whether NaN or infinity in the weights is an error.

    Returns:
        The tensors and the notes, as `read_checkpoint` gives them.

    Example:
        >>> read_checkpoint_bytes(checkpoint_bytes({"w": torch.ones(2)}), "mine")[0]
        {'w': tensor([1., 1.])}
    """
    return _read(io.BytesIO(data), name, limits, require_finite)


def check_finite(params: Mapping[str, Tensor], name: str) -> None:
    """Make sure that no weight is NaN or infinite.

    Args:
        params: Tensors; those that are not floating pass.
        name: What to call the model in the message.

    Raises:
        CheckpointError: If any is; the message names the tensors and counts the entries.

    Example:
        >>> check_finite({"w": torch.ones(2)}, "model A")
    """
    bad = []
    for key in floating(params):
        wrong = int(params[key].numel() - torch.isfinite(params[key]).sum())
        if wrong:
            nan = int(torch.isnan(params[key]).sum())
            bad.append(f"{_short(key)} ({nan} NaN, {wrong - nan} infinite)")
    if bad:
        raise CheckpointError(
            f"{name}: {len(bad)} of {len(params)} tensors hold values that are not finite: "
            f"{_first_few(bad)}. The training probably diverged; choose an earlier checkpoint"
        )


def write_checkpoint(
    path: str | os.PathLike[str],
    params: Mapping[str, Tensor],
    meta: Mapping[str, object] | None = None,
) -> None:
    """Write a safetensors file that is either there whole or not there at all.

    Args:
        path: Where; a file that is there is replaced.
        params: Dense tensors, any device and strides; tensors that share memory are written apart.
        meta: Notes to keep in the file; values are written as text.

    Raises:
        StoreError: If the disk refuses: no such folder, no room, no permission.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_checkpoint(f"{folder}/model.safetensors", {"w": torch.ones(2)})
    """
    path = Path(path)
    tensors, notes = _own_copies(params), _as_text(meta)
    draft = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        safetensors.torch.save_file(tensors, draft, notes)
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"{path.name}: the checkpoint cannot be written ({error}); "
            "check that the folder exists, that it may be written to, and that the disk has room"
        ) from error
    finally:
        draft.unlink(missing_ok=True)


def checkpoint_bytes(
    params: Mapping[str, Tensor], meta: Mapping[str, object] | None = None
) -> bytes:
    """Return what `write_checkpoint` would write, for a download.

    Example:
        >>> len(checkpoint_bytes({"w": torch.ones(2)})) > 8
        True
    """
    return safetensors.torch.save(_own_copies(params), _as_text(meta))


def fingerprint(params: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, dtypes, shapes and values.

    Two models have the same fingerprint if and only if they are equal bit for bit; the order of
    the names, strides, devices and file formats do not count.

    Args:
        params: Dense tensors of any dtype and device.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> fingerprint({"w": torch.zeros(2)})[:12]
        '09248d5aa49b'
    """
    digest = hashlib.sha256()
    for name in sorted(params):
        tensor = params[name].detach().cpu().contiguous()
        head = json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode()
        digest.update(struct.pack("<Q", len(head)) + head)
        raw = tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8)
        if sys.byteorder == "big":
            raw = raw.view(-1, tensor.element_size()).flip(1)
        digest.update(raw.numpy().data)
    return digest.hexdigest()


def _read(
    file: BinaryIO, name: str, limits: Limits, require_finite: bool
) -> tuple[Params, dict[str, str]]:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    _check_size(size, name, limits)
    head = file.read(9)
    if head[8:] == b"{" and int.from_bytes(head[:8], "little") <= _MAX_HEADER:
        params, meta = _read_safetensors(file, size, name, limits)
    elif head.startswith(b"PK\x03\x04"):
        params, meta = _read_torch(file, size, name, limits)
    else:
        raise CheckpointError(f"{name}: {_unknown(head)}{_HOW_TO_SAVE}")
    params, prefix = _strip_wrappers(params)
    if prefix:
        meta["stripped_prefix"] = prefix
    meta["dtypes"] = _dtypes(params)
    if require_finite:
        check_finite(params, name)
    return params, meta


def _check_size(size: int, name: str, limits: Limits) -> None:
    if size == 0:
        raise CheckpointError(f"{name}: the file is empty; save the checkpoint again")
    if size > limits.max_bytes:
        raise CheckpointError(
            f"{name}: the file has {size:,} bytes, more than the limit of {limits.max_bytes:,}; "
            "save the weights alone, without the optimizer's state"
        )


def _unknown(head: bytes) -> str:
    if head[:1] == b"\x80":
        return (
            "this is a plain pickle, or a PyTorch file from before version 1.6; such a file can "
            "run code when it is opened, so it is not read. Open it where you trust it and "
        )
    return "this is neither a safetensors file nor a PyTorch zip file; "


def _read_safetensors(
    file: BinaryIO, size: int, name: str, limits: Limits
) -> tuple[Params, dict[str, str]]:
    header = _safetensors_header(file, size, name, limits)
    meta = header.pop("__metadata__", {})
    _check_names(header, name, limits)
    for key, entry in header.items():
        _check_entry(key, entry, name, limits)
    file.seek(0)
    try:
        params = safetensors.torch.load(file.read())
    except (SafetensorError, ValueError, RuntimeError, OverflowError) as error:
        raise CheckpointError(
            f"{name}: the safetensors file is damaged ({error}); copy or download it again"
        ) from error
    return params, {**meta, "format": "safetensors"}


def _safetensors_header(file: BinaryIO, size: int, name: str, limits: Limits) -> dict[str, Any]:
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if length > size - 8:
        raise CheckpointError(
            f"{name}: the file is cut short: its header should have {length:,} bytes, and only "
            f"{size - 8:,} follow; copy or download it again"
        )
    if length > 1024 * limits.max_tensors:
        raise CheckpointError(
            f"{name}: the header has {length:,} bytes, more than {limits.max_tensors:,} tensors "
            f"need; {_HOW_TO_SAVE}"
        )
    try:
        header = json.loads(file.read(length))
        if isinstance(header, dict) and isinstance(header.get("__metadata__", {}), dict):
            return header
    except (ValueError, RecursionError):
        pass
    raise CheckpointError(
        f"{name}: the header of the safetensors file is damaged; copy or download it again"
    )


def _check_entry(key: str, entry: object, name: str, limits: Limits) -> None:
    match entry:
        case {"dtype": str(dtype), "shape": list(shape)}:
            if dtype not in _SAFE_DTYPES:
                raise _refused(name, key, f"has dtype {dtype[:16]}; save it as float32")
            _check_dims(key, len(shape), name, limits)
        case _:
            raise _refused(name, key, "is listed without a dtype and a shape; save it again")


def _read_torch(
    file: BinaryIO, size: int, name: str, limits: Limits
) -> tuple[Params, dict[str, str]]:
    _check_pickle(_pickled(file, size, name, limits), name)
    planned, meta = _state_dict(_load(file, "meta", name), name)
    _check_names(planned, name, limits)
    _check_planned(planned, size, name, limits)
    found, _ = _state_dict(_load(file, "cpu", name), name)
    params = {
        key: tensor.detach().clone(memory_format=torch.contiguous_format)
        for key, tensor in found.items()
    }
    return params, meta


def _pickled(file: BinaryIO, size: int, name: str, limits: Limits) -> bytes:
    try:
        _check_directory_size(file, size, name, limits)
        with zipfile.ZipFile(file) as archive:
            _check_entries(archive.infolist(), size, name, limits)
            pickled = _find_pickle(archive, name)
            byteorder = pickled.filename.replace("data.pkl", "byteorder")
            if byteorder in archive.namelist() and archive.read(byteorder) != b"little":
                raise CheckpointError(
                    f"{name}: was saved on a big-endian machine; save it as safetensors"
                )
            return archive.read(pickled)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, EOFError) as error:
        raise CheckpointError(
            f"{name}: the zip file is damaged or cut short ({error}); copy or download it again"
        ) from error


def _check_directory_size(file: BinaryIO, size: int, name: str, limits: Limits) -> None:
    # The list of entries is bounded before `zipfile` makes an object of each.
    file.seek(max(0, size - 98))
    tail = file.read().rjust(98, b"\0")
    if tail[-22:-18] != b"PK\x05\x06":
        raise zipfile.BadZipFile("its list of entries is not at the end")
    (listed,) = struct.unpack("<I", tail[-10:-6])
    if tail[-42:-38] == b"PK\x06\x07":
        (listed,) = struct.unpack("<Q", tail[-58:-50])
    if listed > 512 * limits.max_tensors:
        raise CheckpointError(
            f"{name}: the zip file lists too many entries ({listed:,} bytes of names); "
            f"{_HOW_TO_SAVE}"
        )


def _check_entries(
    entries: Sequence[zipfile.ZipInfo], size: int, name: str, limits: Limits
) -> None:
    total = sum(entry.file_size for entry in entries)
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise CheckpointError(
            f"{name}: the zip file is compressed ({total:,} bytes in {size:,}), and torch.save "
            f"never compresses; {_HOW_TO_SAVE}"
        )
    if total > limits.max_bytes:
        raise CheckpointError(
            f"{name}: the zip file holds {total:,} bytes, more than the limit of "
            f"{limits.max_bytes:,}; save the weights alone"
        )
    end = 0
    for entry in sorted(entries, key=lambda e: e.header_offset):
        if entry.header_offset < end:
            raise CheckpointError(f"{name}: entries of the zip file overlap; {_HOW_TO_SAVE}")
        end = entry.header_offset + 30 + entry.file_size
    if end > size or any(e.file_size != e.compress_size or e.flag_bits & 1 for e in entries):
        raise zipfile.BadZipFile("an entry does not have the size that is listed")
    if len({entry.filename for entry in entries}) != len(entries):
        raise zipfile.BadZipFile("two entries have one name")


def _find_pickle(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    names = archive.namelist()
    if any(entry.endswith("/constants.pkl") or "/code/" in entry for entry in names):
        raise CheckpointError(
            f"{name}: this is a TorchScript archive, which holds code, so it is not read. Open it "
            f"where you trust it and {_HOW_TO_SAVE}"
        )
    pickles = [entry for entry in names if entry.endswith("/data.pkl") and entry.count("/") == 1]
    if len(pickles) != 1:
        raise CheckpointError(
            f"{name}: this zip file was not written by torch.save (no data.pkl); {_HOW_TO_SAVE}"
        )
    pickled = archive.getinfo(pickles[0])
    if pickled.file_size > _MAX_PICKLE:
        raise CheckpointError(
            f"{name}: the description of its tensors has {pickled.file_size:,} bytes, more "
            f"than the limit of {_MAX_PICKLE:,}; {_HOW_TO_SAVE}"
        )
    return pickled


def _check_pickle(pickled: bytes, name: str) -> None:
    near, stack, memo = "", list[_Value](), dict[object, _Value]()
    try:
        for op, argument, _ in pickletools.genops(pickled):
            if op.name == "GLOBAL":
                _check_global(str(argument).replace(" ", ".", 1), near, name)
            if op.name in _OBJECTS:
                raise CheckpointError(
                    f"{name}: holds Python objects other than tensors ({op.name}), or was saved "
                    f"with another pickle protocol than 2; {_HOW_TO_SAVE}"
                )
            near = str(argument) if op.name == "BINUNICODE" else near
            _replay(op, argument, stack, memo)
    except (ValueError, IndexError, KeyError) as error:
        raise CheckpointError(
            f"{name}: its data.pkl is damaged, or not as torch.save writes it ({error}); "
            f"{_HOW_TO_SAVE}"
        ) from error


class _Value(NamedTuple):
    depth: int  # how deep tuples nest in it
    kind: str  # "" for numbers, text and tuples of such; "dict"; a global's name; …


_MARK = _Value(0, "mark")


def _replay(
    op: pickletools.OpcodeInfo,
    argument: object,
    stack: list[_Value],
    memo: dict[object, _Value],
) -> None:
    # Follows what each opcode takes and makes, because two things end the process before any
    # tensor can be looked at: the hash of a tuple nested a million deep overflows the C stack, and
    # a call that unpacks a view of a billion entries on four bytes makes a billion tensors.
    taken = _take(op, stack)
    depth = max((value.depth for value in taken), default=0) + op.name.startswith("TUPLE")
    if depth > _MAX_NESTING:
        raise ValueError("nested too deep")
    if op.name == "REDUCE" and taken[0].kind not in _ARGUMENTS.get(taken[1].kind, ()):
        raise ValueError("a call with unusual arguments")
    if op.name == "BUILD" and taken[0].kind != "dict":
        raise ValueError("an object with an unusual state")
    if op.name in {"BINPUT", "LONG_BINPUT"}:
        memo[argument] = stack[-1]
    made = _Value(depth, _kind(op, argument, taken))
    if op.name in {"BINGET", "LONG_BINGET"}:
        made = memo[argument]
    for item in op.stack_after:
        stack.append(_MARK if item is pickletools.markobject else made)


def _take(op: pickletools.OpcodeInfo, stack: list[_Value]) -> list[_Value]:
    # The values that an opcode takes off the stack, the topmost first.
    taken, below_mark = [], len(op.stack_before)
    if pickletools.markobject in op.stack_before:
        below_mark = op.stack_before.index(pickletools.markobject)
        while (value := stack.pop()) is not _MARK:
            taken.append(value)
    return taken + [stack.pop() for _ in range(below_mark)]


def _kind(op: pickletools.OpcodeInfo, argument: object, taken: Sequence[_Value]) -> str:
    kinds = [value.kind for value in taken]
    if op.name == "GLOBAL":
        return str(argument).replace(" ", ".", 1)
    if op.name.startswith("TUPLE"):
        return "(dict,)" if kinds == ["dict"] else "tuple" if any(kinds) else ""
    if op.name in {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD"}:
        return kinds[-1]
    if op.name == "EMPTY_DICT":
        return "dict"
    return "other" if op.stack_before or op.name in {"EMPTY_LIST", "EMPTY_SET"} else ""


def _check_global(wanted: str, near: str, name: str) -> None:
    if wanted in _REBUILDS:
        raise _refused(name, near, _REBUILDS[wanted])
    if wanted not in _GLOBALS:
        raise CheckpointError(
            f"{name}: holds {_short(wanted)}, which is not a tensor and could run code, so it is "
            f"not read. Open it where you trust it and {_HOW_TO_SAVE}"
        )


def _load(file: BinaryIO, device: str, name: str) -> object:
    file.seek(0)
    try:
        return torch.load(file, map_location=device, weights_only=True)
    except Exception as error:  # what a damaged file makes of the reader is not ours to list
        reason = str(error).split("\n", maxsplit=1)[0][:200]
        raise CheckpointError(
            f"{name}: PyTorch cannot read this file as weights only "
            f"({type(error).__name__}: {reason}); {_HOW_TO_SAVE}"
        ) from error


def _state_dict(loaded: object, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    meta = {"format": "pytorch"}
    for _ in range(3):
        inner = _inside(loaded)
        if inner is None or not isinstance(loaded, dict):
            break
        meta["found_under"] = ".".join(filter(None, (meta.get("found_under"), inner)))
        if beside := [_short(str(key)) for key in loaded if key != inner]:
            meta["ignored"] = _first_few(beside)
        loaded = loaded[inner]
    if not isinstance(loaded, dict):
        raise CheckpointError(
            f"{name}: holds {type(loaded).__name__}, not a dict of tensors; {_HOW_TO_SAVE}"
        )
    for key, value in loaded.items():
        if not isinstance(key, str):
            raise CheckpointError(
                f"{name}: a name is {type(key).__name__}, not text; {_HOW_TO_SAVE}"
            )
        if not isinstance(value, Tensor):
            raise _refused(name, key, f"is {type(value).__name__}, not a tensor; leave it out")
    return loaded, meta


def _inside(loaded: object) -> str | None:
    if not isinstance(loaded, dict):
        return None
    dicts = [key for key in _KEYS if isinstance(loaded.get(key), dict)]
    with_tensors = [k for k in dicts if any(isinstance(v, Tensor) for v in loaded[k].values())]
    return next(iter(with_tensors + dicts), None)


def _check_planned(planned: Mapping[str, Tensor], size: int, name: str, limits: Limits) -> None:
    total = 0
    for key, tensor in planned.items():
        _check_dense(key, tensor, name)
        _check_dims(key, tensor.dim(), name, limits)
        claimed = math.prod(tensor.shape) * tensor.element_size()
        there = min(tensor.untyped_storage().nbytes(), size)
        if not tensor.is_meta or claimed > there:
            raise _refused(
                name,
                key,
                f"claims {claimed:,} bytes, but at most {there:,} are stored (an expanded "
                "view?); save its clone()",
            )
        total += claimed
    if total > limits.max_bytes:
        raise CheckpointError(
            f"{name}: its tensors take {total:,} bytes, more than the limit of "
            f"{limits.max_bytes:,}; choose a smaller model"
        )


def _check_names(names: Iterable[str], name: str, limits: Limits) -> None:
    names = list(names)
    if not names:
        raise CheckpointError(f"{name}: holds no tensors; {_HOW_TO_SAVE}")
    if len(names) > limits.max_tensors:
        raise CheckpointError(
            f"{name}: holds {len(names):,} tensors, more than the limit of {limits.max_tensors:,}"
        )
    for key in names:
        if len(key) > limits.max_name:
            raise _refused(
                name, key, f"has a name of {len(key):,} characters (limit {limits.max_name})"
            )


def _check_dims(key: str, dims: int, name: str, limits: Limits) -> None:
    if dims > limits.max_dims:
        raise _refused(name, key, f"has {dims} axes (limit {limits.max_dims})")


def _check_dense(key: str, tensor: Tensor, name: str) -> None:
    if tensor.is_quantized or tensor.layout != torch.strided:
        raise _refused(name, key, "is sparse or quantised; save it as a dense float tensor")
    if tensor.dtype not in _DTYPES:
        raise _refused(name, key, f"has dtype {tensor.dtype}; save it as float32")


def _refused(name: str, key: str, why: str) -> CheckpointError:
    return CheckpointError(f"{name}: tensor {_short(key)} {why}")


def _strip_wrappers(params: Params) -> tuple[Params, str]:
    stripped = ""
    while prefix := next((w for w in _WRAPPERS if _all_have(params, w)), ""):
        params = {key.removeprefix(prefix): tensor for key, tensor in params.items()}
        stripped += prefix
    return params, stripped


def _all_have(names: Iterable[str], prefix: str) -> bool:
    return all(key.startswith(prefix) and key != prefix for key in names)


def _dtypes(params: Params) -> str:
    counts = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in params.values())
    return ", ".join(f"{dtype}: {n}" for dtype, n in sorted(counts.items()))


def _own_copies(params: Mapping[str, Tensor]) -> Params:
    for key, tensor in params.items():
        _check_dense(key, tensor, "cannot be written")
    return {
        key: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for key, tensor in params.items()
    }


def _as_text(meta: Mapping[str, object] | None) -> dict[str, str]:
    return {str(key): str(value) for key, value in (meta or {}).items()}


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _first_few(items: Sequence[str]) -> str:
    rest = len(items) - _SHOWN
    return ", ".join(items[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
