"""Checkpoints one tensor at a time: opened without reading the weights, written piece by piece.

Opening indexes and checks a file, a folder or a zip file of a folder; a tensor is read when it is
asked for, into memory of its own, and forgotten by the caller when it likes. So twenty large
models can be walked through together, name by name.
"""

from __future__ import annotations

import io
import json
import math
import os
import struct
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

import torch
from torch import Tensor

from merging.archives import Archive
from merging.checkpoint_formats import (
    SAFE_DTYPES,
    Index,
    Place,
    index_adam,
    index_safetensors,
    index_torch,
    read_blocks,
    read_tensor,
)
from merging.checkpoint_guards import (
    DEFAULT_LIMITS,
    HOW_TO_SAVE,
    Limits,
    check_dense,
    check_names,
    check_size,
    first_few,
    short,
)
from merging.checkpoint_shards import (
    DiskFolder,
    Folder,
    Weights,
    ZipFolder,
    check_shards,
    find_weights,
)
from merging.errors import CheckpointError, StoreError
from merging.optimizer_state import AdamState
from merging.params import LazyParams
from merging.zip_guard import find_pickle, is_pt2, open_zip

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_WRAPPERS = ("module.", "_orig_mod.")
_MAX_HEADER = 100_000_000
_INDEX = ".index.json"
_BUFFER = 1 << 20  # bytes that small tensors share
_CODES = {dtype: code for code, dtype in SAFE_DTYPES.items()}


@dataclass(frozen=True)
class TensorSpec:
    """What a tensor is, without its values.

    Attributes:
        shape: Its sizes.
        dtype: Of its numbers.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of its values."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


class OpenCheckpoint(LazyParams):
    """A checkpoint whose tensors are read when they are asked for, each time anew.

    Made by `open_checkpoint`. It is a mapping from names to tensors, so it goes wherever a state
    dict is only read; close it, or use it in a `with` statement.

    Attributes:
        name: What messages call it.
        meta: Notes on what was found, as `read_checkpoint` gives them.
        specs: Name → shape and dtype of each tensor.
    """

    def __init__(
        self,
        name: str,
        places: Mapping[str, tuple[BinaryIO, Place]],
        meta: Mapping[str, str],
        files: ExitStack,
    ) -> None:
        self.meta = dict(meta)
        self.specs = {key: TensorSpec(p.shape, p.dtype) for key, (_, p) in places.items()}
        self.name, self._places, self._files = name, dict(places), files
        super().__init__(self._places, self.tensor)

    def tensor(self, name: str) -> Tensor:
        """Read one tensor.

        Args:
            name: One of `specs`.

        Returns:
            The tensor, contiguous, on the CPU, in memory of its own.

        Raises:
            CheckpointError: If the file changed while it was open, or was closed.
        """
        file, place = self._places[name]
        try:
            return read_tensor(file, place, name, self.name)
        except (OSError, ValueError) as error:
            raise self._unreadable(name, error) from error

    def blocks(self, name: str, entries: int) -> Iterator[Tensor]:
        """Read one tensor in blocks, all into the same memory.

        Args:
            name: One of `specs`.
            entries: How many entries a block has; the last has what is left.

        Yields:
            Blocks `[n]` in the order of the entries; what one holds is gone with the next.

        Raises:
            CheckpointError: If the file changed while it was open, or was closed.
        """
        file, place = self._places[name]
        try:
            yield from read_blocks(file, place, name, self.name, entries)
        except (OSError, ValueError) as error:
            raise self._unreadable(name, error) from error

    def first_names(self) -> dict[str, str]:
        """For every tensor, the first name of those that share its memory: tied ones have several.

        Returns:
            Name → first name, in the order of the file.
        """
        first: dict[tuple[object, ...], str] = {}
        found = {}
        for name, (file, place) in self._places.items():
            key = (id(file), place) if place.length else (name,)
            found[name] = first.setdefault(key, name)
        return found

    def close(self) -> None:
        """Close the files; tensors that were read stay."""
        self._files.close()

    def _unreadable(self, name: str, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"{self.name}: tensor {short(name)} cannot be read ({error}); open the file again"
        )

    def __enter__(self) -> OpenCheckpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def open_checkpoint(
    source: str | os.PathLike[str] | bytes,
    name: str | None = None,
    *,
    limits: Limits = DEFAULT_LIMITS,
) -> OpenCheckpoint:
    """Open a checkpoint to read its tensors one at a time.

    What may be opened: a safetensors file, a PyTorch zip file (a state dict, alone or inside a
    training checkpoint; one of Lightning), a folder with one of these, a folder with shards and
    their index, the index itself, and a zip file of such a folder.

    Args:
        source: A path on this machine, or a whole file as bytes.
        name: What to call it in messages; the path's last part unless given.
        limits: The most it may hold.

    Returns:
        The open checkpoint. Prefixes that all names share because a wrapper added them (`module.`,
        `_orig_mod.`; of a Lightning checkpoint any first part) are cut off, and
        `meta["stripped_prefix"]` says so.

    Raises:
        CheckpointError: If it is missing, damaged, of another kind, over the limits, holds
            anything but tensors, or could run code.

    Example:
        >>> data = io.BytesIO()
        >>> torch.save({"module.weight": torch.ones(2)}, data)
        >>> with open_checkpoint(data.getvalue(), "mine.pt") as checkpoint:
        ...     checkpoint.specs, checkpoint.tensor("weight")
        ({'weight': TensorSpec(shape=(2,), dtype=torch.float32)}, tensor([1., 1.]))
    """
    called = _called(source, name)
    with _opening(called) as files:
        if isinstance(source, bytes):
            return _open_file(io.BytesIO(source), called, limits, files)
        return _open_path(Path(source), called, limits, files)


def open_adam(
    source: str | os.PathLike[str] | bytes,
    name: str | None = None,
    *,
    limits: Limits = DEFAULT_LIMITS,
) -> tuple[OpenCheckpoint, AdamState]:
    """Open what Adam remembers in a training checkpoint of PyTorch or Lightning.

    Args:
        source: A file on this machine, or a whole file as bytes.
        name: What to call it in messages; the path's last part unless given.
        limits: The most it may hold.

    Returns:
        The tensors, by the names that the state's entries have for them; and the state.

    Raises:
        CheckpointError: If it cannot be opened, or holds no state of Adam.
    """
    called = _called(source, name)
    with _opening(called) as files:
        path = Path() if isinstance(source, bytes) else Path(source)
        if isinstance(source, bytes):
            file: BinaryIO = io.BytesIO(source)
        elif path.is_file():
            file = files.enter_context(path.open("rb"))
        else:
            raise CheckpointError(
                f"{called}: there is no such file; the state of an optimizer is in a file of "
                "torch.save"
            )
        archive, size = _torch_zip(file, called, limits)
        pickled = None if archive is None else find_pickle(archive)
        if archive is None or pickled is None:
            raise CheckpointError(
                f"{called}: holds no state of an optimizer: it was not written by torch.save"
            )
        places, state = index_adam(archive, pickled, size, called, limits)
        found = {key: (file, place) for key, place in places.items()}
        return OpenCheckpoint(called, found, {"format": "pytorch"}, files), state


def _called(source: str | os.PathLike[str] | bytes, name: str | None) -> str:
    return name or ("upload" if isinstance(source, bytes) else Path(source).name)


@contextmanager
def _opening(name: str) -> Iterator[ExitStack]:
    """Open files, which are closed again if they do not become an open checkpoint.

    Yields:
        Where to keep the files.

    Raises:
        CheckpointError: If the system cannot read one.
    """
    files = ExitStack()
    try:
        yield files
    except OSError as error:
        files.close()
        why = error.strerror or error
        raise CheckpointError(f"{name}: the file cannot be read ({why})") from error
    except BaseException:
        files.close()
        raise


def _torch_zip(file: BinaryIO, name: str, limits: Limits) -> tuple[Archive | None, int]:
    """The zip file that this is, if it is one, and its size in bytes."""
    size = file.seek(0, os.SEEK_END)
    check_size(size, name, limits)
    file.seek(0)
    return (open_zip(file, name, limits) if file.read(4) == b"PK\x03\x04" else None), size


def stream_checkpoint(
    path: str | os.PathLike[str],
    specs: Mapping[str, TensorSpec],
    tensor: Callable[[str], Tensor | Iterator[Tensor]],
    meta: Mapping[str, object] | None = None,
) -> None:
    """Write a safetensors file one tensor at a time; it is there whole or not at all.

    Args:
        path: Where; a file that is there is replaced.
        specs: Every tensor's shape and dtype, known before any is made.
        tensor: Asked for each name once, when its turn comes; returns the tensor, or blocks `[n]`
            of its entries, one after another. It should not keep what it returned.
        meta: Notes to keep in the file; values are written as text.

    Raises:
        CheckpointError: If a dtype cannot be written, or `tensor` returns another shape or dtype
            than `specs` says.
        StoreError: If the disk refuses: no such folder, no room, no permission.

    Example:
        >>> import tempfile
        >>> specs = {"w": TensorSpec((2,), torch.float32)}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     stream_checkpoint(f"{folder}/m.safetensors", specs, lambda name: torch.ones(2))
        ...     with open_checkpoint(f"{folder}/m.safetensors") as checkpoint:
        ...         checkpoint.tensor("w")
        tensor([1., 1.])
    """
    path = Path(path)
    draft = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with io.BufferedWriter(_Prompt(draft, "xb"), _BUFFER) as file:
            write_tensors(file, specs, tensor, meta, path.name)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise StoreError(
            f"{path.name}: the checkpoint cannot be written ({error}); "
            "check that the folder exists, that it may be written to, and that the disk has room"
        ) from error
    finally:
        draft.unlink(missing_ok=True)


class _Prompt(io.FileIO):
    """A file that the system begins to put on the disk while more is still being written.

    So there is little left to wait for when all has to be there. What is on the disk already may
    leave the cache.
    """

    def write(self, data: ReadableBuffer, /) -> int:
        written = super().write(data)
        if sys.platform == "linux":
            start = self.tell() - written
            os.posix_fadvise(self.fileno(), start, written, os.POSIX_FADV_DONTNEED)
        return written


def write_tensors(
    file: BinaryIO,
    specs: Mapping[str, TensorSpec],
    tensor: Callable[[str], Tensor | Iterator[Tensor]],
    meta: Mapping[str, object] | None,
    name: str,
) -> None:
    """Write what a safetensors file holds, one tensor at a time; equal models give equal bytes.

    Args:
        file: Where to.
        specs: Every tensor's shape and dtype.
        tensor: Asked for each name once, when its turn comes; as in `stream_checkpoint`.
        meta: Notes to keep in the file; values are written as text.
        name: What to call the file in messages.

    Raises:
        CheckpointError: If a dtype cannot be written, or `tensor` returns another shape or dtype
            than `specs` says.
    """
    # Wide numbers first, so that each tensor begins where its dtype may.
    order = sorted(specs, key=lambda key: (-specs[key].dtype.itemsize, key))
    file.write(_header(specs, order, meta, name))
    for key in order:
        _write(file, key, tensor(key), specs[key], name)


def _header(
    specs: Mapping[str, TensorSpec],
    order: Iterable[str],
    meta: Mapping[str, object] | None,
    name: str,
) -> bytes:
    header: dict[str, object] = {}
    if meta:
        header["__metadata__"] = {str(key): str(value) for key, value in meta.items()}
    at = 0
    for key in order:
        spec = specs[key]
        if spec.dtype not in _CODES:
            raise CheckpointError(
                f"{name}: tensor {short(key)} has dtype {spec.dtype}, which cannot be written; "
                "convert it to float32"
            )
        header[key] = {
            "dtype": _CODES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [at, at + spec.nbytes],
        }
        at += spec.nbytes
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _write(
    file: BinaryIO, key: str, given: Tensor | Iterator[Tensor], spec: TensorSpec, name: str
) -> None:
    if isinstance(given, Tensor):
        check_dense(key, given, name)
        _check_announced(key, tuple(given.shape), given.dtype, spec, name)
        _write_entries(file, given)
        return
    written = 0
    for block in given:
        _check_announced(key, spec.shape, block.dtype, spec, name)
        _write_entries(file, block)
        written += block.numel()
    if written != math.prod(spec.shape):
        _check_announced(key, (written,), spec.dtype, spec, name)


def _check_announced(
    key: str, shape: tuple[int, ...], dtype: torch.dtype, spec: TensorSpec, name: str
) -> None:
    if shape != spec.shape or dtype != spec.dtype:
        raise CheckpointError(
            f"{name}: tensor {short(key)} is {list(shape)} of {dtype}, and "
            f"{list(spec.shape)} of {spec.dtype} was announced"
        )


def _write_entries(file: BinaryIO, tensor: Tensor) -> None:
    plain = tensor.detach().cpu().contiguous()
    raw = plain.as_strided((plain.numel(),), (1,), plain.storage_offset()).view(torch.uint8)
    if struct.pack("=H", 1) != struct.pack("<H", 1):
        raw = raw.view(-1, plain.element_size()).flip(1).contiguous()
    file.write(raw.numpy().data)


def _open_path(path: Path, name: str, limits: Limits, files: ExitStack) -> OpenCheckpoint:
    if not path.exists():
        raise CheckpointError(f"{name}: there is no such file; check the path")
    if path.is_dir():
        return _open_folder(DiskFolder(path), name, limits, files, None)
    if not path.is_file():
        raise CheckpointError(f"{name}: this is not a file; choose a checkpoint file or a folder")
    if path.name.endswith(_INDEX):
        return _open_folder(DiskFolder(path.parent), name, limits, files, path.name)
    return _open_file(files.enter_context(path.open("rb")), name, limits, files)


def _open_file(file: BinaryIO, name: str, limits: Limits, files: ExitStack) -> OpenCheckpoint:
    head = file.read(4)
    file.seek(0)
    if head == b"PK\x03\x04":
        check_size(file.seek(0, os.SEEK_END), name, limits)
        archive = open_zip(file, name, limits)
        if find_pickle(archive) is None and not is_pt2(archive):
            return _open_folder(ZipFolder(archive, name), name, limits, files, None)
    places, meta = _index(file, name, limits)
    return _opened({key: (file, place) for key, place in places.items()}, meta, name, files)


def _open_folder(
    folder: Folder, name: str, limits: Limits, files: ExitStack, index: str | None
) -> OpenCheckpoint:
    weights = find_weights(folder, name, index)
    found: dict[str, dict[str, Place]] = {}
    handles: dict[str, BinaryIO] = {}
    meta: dict[str, str] = {}
    total = 0
    for shard in weights.files:
        handles[shard] = files.enter_context(folder.open(shard))
        found[shard], notes = _index(handles[shard], f"{name}: {short(shard)[1:-1]}", limits)
        meta |= {key: value for key, value in notes.items() if key not in meta}
        total += handles[shard].seek(0, os.SEEK_END)
        check_size(total, name, limits)
    unlisted = check_shards(found, weights, name)
    meta |= _folder_notes(weights, unlisted)
    places = {key: (handles[shard], p) for shard in found for key, p in found[shard].items()}
    kept = {key: place for key, place in places.items() if key not in set(unlisted)}
    check_names(kept, name, limits)
    return _opened(kept, meta, name, files)


def _folder_notes(weights: Weights, unlisted: list[str]) -> dict[str, str]:
    notes = {"files": first_few(weights.files)}
    if weights.shard_of is not None:
        notes["shards"] = str(len(weights.files))
    if weights.config:
        notes["config"] = weights.config
    if unlisted:
        notes["ignored"] = first_few([short(key) for key in unlisted])
    return notes


def _index(file: BinaryIO, name: str, limits: Limits) -> Index:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    check_size(size, name, limits)
    head = file.read(9)
    if head[8:] == b"{" and int.from_bytes(head[:8], "little") <= _MAX_HEADER:
        return index_safetensors(file, size, name, limits)
    if head.startswith(b"PK\x03\x04"):
        archive = open_zip(file, name, limits)
        pickled = find_pickle(archive)
        if is_pt2(archive) and pickled is None:
            raise CheckpointError(
                f"{name}: this is an exported program (.pt2), which is an architecture with its "
                f"weights; bring it as an architecture, or {HOW_TO_SAVE}"
            )
        if pickled is not None:
            return index_torch(archive, pickled, size, name, limits)
        raise CheckpointError(
            f"{name}: this zip file was not written by torch.save (no data.pkl); {HOW_TO_SAVE}"
        )
    raise CheckpointError(f"{name}: {_unknown(head)}{HOW_TO_SAVE}")


def _unknown(head: bytes) -> str:
    if head[:1] == b"\x80":
        return (
            "this is a plain pickle, or a PyTorch file from before version 1.6; such a file can "
            "run code when it is opened, so it is not read. Open it where you trust it and "
        )
    if head.lstrip()[:1] == b"{":
        return "this is text, perhaps the index of shards; zip it with its shards, or "
    return "this is neither a safetensors file nor a PyTorch zip file; "


def _opened(
    places: Mapping[str, tuple[BinaryIO, Place]],
    meta: Mapping[str, str],
    name: str,
    files: ExitStack,
) -> OpenCheckpoint:
    prefix = _prefix(list(places), lightning=meta.get("format") == "lightning")
    stripped = {key.removeprefix(prefix): place for key, place in places.items()}
    notes = {"stripped_prefix": prefix} if prefix else {}
    return OpenCheckpoint(name, stripped, {**meta, **notes}, files)


def _prefix(names: list[str], *, lightning: bool) -> str:
    stripped = _wrappers(names, "")
    if lightning and names:
        first = names[0].removeprefix(stripped).split(".")[0] + "."
        # A list of layers is numbered: such a first part belongs to the network.
        if not first[:-1].isdecimal() and _all_have(names, stripped + first):
            stripped = _wrappers(names, stripped + first)
    return stripped


def _wrappers(names: list[str], stripped: str) -> str:
    while wrapper := next((w for w in _WRAPPERS if _all_have(names, stripped + w)), ""):
        stripped += wrapper
    return stripped


def _all_have(names: list[str], prefix: str) -> bool:
    return all(key.startswith(prefix) and key != prefix for key in names)
