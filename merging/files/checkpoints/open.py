"""Checkpoints one tensor at a time: opened without reading the weights, written piece by piece.

Opening indexes and checks a file, a folder or a zip file of a folder; a tensor is read when it is
asked for, into memory of its own, and forgotten by the caller when it likes. So twenty large
models can be walked through together, name by name.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

from torch import Tensor

from merging.files.checkpoints.adam_state import AdamState
from merging.files.checkpoints.lazy_params import LazyParams
from merging.files.checkpoints.limits import (
    DEFAULT_LIMITS,
    HOW_TO_SAVE,
    Limits,
    check_names,
    check_size,
    first_few,
    short,
)
from merging.files.checkpoints.not_weights import check_weights_are_numbers
from merging.files.checkpoints.prefix import _prefix
from merging.files.checkpoints.safetensors_format import index_safetensors
from merging.files.checkpoints.shards import (
    DiskFolder,
    Folder,
    Weights,
    ZipFolder,
    check_shards,
    find_weights,
)
from merging.files.checkpoints.tensor_place import Index, Place, read_blocks, read_tensor
from merging.files.checkpoints.tensor_spec import TensorSpec
from merging.files.checkpoints.torch_format import index_adam, index_torch
from merging.files.checkpoints.torch_zip import find_pickle, is_pt2, open_zip
from merging.files.zip_archive import Archive
from merging.schema.errors import CheckpointError

if TYPE_CHECKING:
    pass

_MAX_HEADER = 100_000_000
_INDEX = ".index.json"


class OpenCheckpoint(LazyParams):
    """A checkpoint whose tensors are read when they are asked for, anew each time.

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
        """Return for every name the first that shares its memory: tied tensors have several names.

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
            anything but tensors, could run code, or holds factors of LoRA or quantised tensors.

    Example:
        >>> import torch
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
    """Open Adam's state in a training checkpoint of PyTorch or Lightning.

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
                f"{called}: holds no state of an optimizer; give a training checkpoint that "
                "torch.save wrote"
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
    """Return the zip file that this is, if it is one, and its size in bytes."""
    size = file.seek(0, os.SEEK_END)
    check_size(size, name, limits)
    file.seek(0)
    return (open_zip(file, name, limits) if file.read(4) == b"PK\x03\x04" else None), size


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
                f"weights; give it as the architecture, or {HOW_TO_SAVE}"
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
    opened = OpenCheckpoint(name, stripped, {**meta, **notes}, files)
    check_weights_are_numbers(opened.specs, name)
    return opened
