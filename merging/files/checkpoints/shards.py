"""Which files of a model's folder hold its weights: one file, or shards and their index.

A folder is one on disk, or a zip file of one, read in place. The index of a sharded model names
its files; such a name is only ever looked up among the names that the folder lists, so it cannot
lead anywhere else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from merging.files.checkpoints.limits import HOW_TO_SAVE, first_few, short, unique_keys
from merging.files.zip_archive import Archive, ArchiveError
from merging.schema.errors import CheckpointError

_INDEX = ".index.json"
_SAFE = (".safetensors",)
_TORCH = (".bin", ".pt", ".pth", ".ckpt")
_USUAL = ("model", "pytorch_model", "diffusion_pytorch_model", "adapter_model", "weights")
_MAX_INDEX = 5_000_000
_MAX_CONFIG = 100_000
_MAX_SHARDS = 500


class Folder(Protocol):
    """The files of a model, by name."""

    def names(self) -> list[str]:
        """Return the names of the files directly inside."""

    def open(self, name: str) -> BinaryIO:
        """Open one of `names`."""


class DiskFolder:
    """The files in a folder on this machine.

    Args:
        path: The folder.

    Example:
        >>> DiskFolder(Path(".")).names() != []
        True
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self) -> list[str]:
        """Return the names of the files directly inside; links are followed, as caches use them."""
        return sorted(path.name for path in self._path.iterdir() if path.is_file())

    def open(self, name: str) -> BinaryIO:
        """Open one of `names`."""
        return (self._path / name).open("rb")


class ZipFolder:
    """The files of a folder in a zip file: the one folder with weights, however deep.

    Args:
        archive: The zip file.
        name: What to call it in messages.

    Raises:
        CheckpointError: If several folders in it hold weights.
    """

    def __init__(self, archive: Archive, name: str) -> None:
        self._archive, self._name = archive, name
        visible = [entry for entry in archive.entries if not _hidden(entry)]
        weights = [n for n in visible if n.endswith((*_SAFE, *_TORCH, _INDEX))]
        inside = sorted({entry.rpartition("/")[0] for entry in weights})
        if len(inside) > 1:
            raise CheckpointError(
                f"{name}: several folders in the zip file hold weights: "
                f"{first_few([short(folder or '.') for folder in inside])}; zip one model alone"
            )
        self._folder = f"{inside[0]}/" if inside and inside[0] else ""
        self._names = [n for n in visible if n.rpartition("/")[0] == self._folder[:-1]]

    def names(self) -> list[str]:
        """Return the names of the files directly inside."""
        return sorted(entry.removeprefix(self._folder) for entry in self._names)

    def open(self, name: str) -> BinaryIO:
        """Open one of `names`; what is packed is unpacked in memory, under limits.

        Raises:
            CheckpointError: If it is damaged, or unpacks to much more than it takes.
        """
        try:
            return self._archive.open(self._folder + name)
        except ArchiveError as error:
            raise CheckpointError(f"{self._name}: {error}; zip the model again") from error


@dataclass(frozen=True)
class Weights:
    """The files that hold a model's weights.

    Attributes:
        files: Names, in order.
        shard_of: Tensor's name → file, as an index says; None where there is no index.
        config: The text of `config.json`; empty if there is none.
    """

    files: tuple[str, ...]
    shard_of: Mapping[str, str] | None
    config: str = ""


def find_weights(folder: Folder, name: str, index: str | None = None) -> Weights:
    """Find the weights of a model among the files of its folder.

    The index of a sharded model comes first, then one safetensors file, then one PyTorch file;
    among several of a kind, the one with a usual name.

    Args:
        folder: The files.
        name: What to call the folder in messages.
        index: The index to follow, where it is known.

    Returns:
        The files to read.

    Raises:
        CheckpointError: If there are none, or several that could be meant, or an index is
            damaged or names files that are not there.
    """
    names = folder.names()
    config = _config(folder, names)
    indexes = [index] if index else [n for n in names if n.endswith(_INDEX)]
    for endings in (_SAFE, _TORCH):
        listed = [n for n in indexes if n.removesuffix(_INDEX).endswith(endings) or index]
        if listed:
            chosen = _choose(listed, name)
            shard_of = _read_index(folder, chosen, names, name)
            return Weights(tuple(dict.fromkeys(shard_of.values())), shard_of, config)
        alone = [n for n in names if n.endswith(endings)]
        if alone:
            return Weights((_choose(alone, name),), None, config)
    raise CheckpointError(
        f"{name}: no weights are in it, only {first_few([short(n) for n in names]) or 'nothing'}; "
        f"expected one file of weights (.safetensors, .bin, .pt, .ckpt), or shards and their "
        f"index, next to config.json; or {HOW_TO_SAVE}"
    )


def check_shards(found: Mapping[str, Iterable[str]], weights: Weights, name: str) -> list[str]:
    """Make sure that each tensor is where the index says, and only there.

    Args:
        found: File → names of the tensors in it.
        weights: What the index says.
        name: What to call the folder in the message.

    Returns:
        Names of tensors that are in a file and not in the index.

    Raises:
        CheckpointError: If a tensor is missing, or in two files.
    """
    homes: dict[str, str] = {}
    for file, keys in found.items():
        for key in keys:
            if key in homes:
                raise CheckpointError(
                    f"{name}: tensor {short(key)} is in {short(homes[key])} and again in "
                    f"{short(file)}; which one counts cannot be known, save the model again"
                )
            homes[key] = file
    shard_of = weights.shard_of or homes
    missing = [short(key) for key, file in shard_of.items() if homes.get(key) != file]
    if missing:
        raise CheckpointError(
            f"{name}: {len(missing)} tensors are not in the file that the index names: "
            f"{first_few(missing)}; the download is incomplete, or the files are of two models"
        )
    return [key for key in homes if key not in shard_of]


def _hidden(entry: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in entry.split("/"))


def _choose(names: list[str], name: str) -> str:
    if len(names) == 1:
        return names[0]
    usual = [n for n in names if n.split(".")[0] in _USUAL]
    if len(usual) == 1:
        return usual[0]
    raise CheckpointError(
        f"{name}: {len(names)} files could be the weights: {first_few([short(n) for n in names])}; "
        "choose one of them, or put the index of the shards beside them"
    )


def _config(folder: Folder, names: list[str]) -> str:
    if "config.json" not in names:
        return ""
    with folder.open("config.json") as file:
        text = file.read(_MAX_CONFIG + 1)
    try:
        config = json.loads(text)
        return text.decode() if isinstance(config, dict) and len(text) <= _MAX_CONFIG else ""
    except (ValueError, RecursionError):
        return ""


def _read_index(folder: Folder, index: str, names: list[str], name: str) -> dict[str, str]:
    with folder.open(index) as file:
        text = file.read(_MAX_INDEX + 1)
    if len(text) > _MAX_INDEX:
        raise CheckpointError(
            f"{name}: the index {short(index)} has more than {_MAX_INDEX:,} bytes; it should only "
            "list the tensors and their files"
        )
    why = "it has no 'weight_map' of names and files"
    try:
        match json.loads(text, object_pairs_hook=unique_keys):
            case {"weight_map": dict(shard_of)} if shard_of and _all_text(shard_of.values()):
                _check_files(set(shard_of.values()), names, index, name)
                return shard_of
    except (ValueError, RecursionError) as error:
        why = str(error)[:150]
    raise CheckpointError(
        f"{name}: the index {short(index)} is damaged ({why}); download the model again"
    )


def _all_text(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def _check_files(files: set[str], names: list[str], index: str, name: str) -> None:
    outside = sorted(n for n in files if "/" in n or "\\" in n or n in {"", ".", ".."})
    if outside:
        raise CheckpointError(
            f"{name}: the index {short(index)} names {short(outside[0])}, which is not a file "
            "beside it; all shards must be in the folder of their index"
        )
    if len(files) > _MAX_SHARDS:
        raise CheckpointError(
            f"{name}: the index {short(index)} names {len(files):,} files (limit {_MAX_SHARDS})"
        )
    missing = sorted(files - set(names))
    if missing:
        raise CheckpointError(
            f"{name}: {len(missing)} of {len(files)} shards are missing: "
            f"{first_few([short(n) for n in missing])}; put all of them beside the index"
        )
