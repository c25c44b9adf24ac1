"""What the zip file of a PyTorch checkpoint or exported program may hold, from its list of entries.

`torch.save` and `torch.export.save` write their entries side by side and never compress them; a
list that says otherwise belongs to a bomb, to a damaged file, or to something else. The weights
are not touched.
"""

import json
from typing import BinaryIO

from merging.files.checkpoints.limits import HOW_TO_SAVE, Limits, first_few, unique_keys
from merging.files.zip_archive import Archive, ArchiveError, shown
from merging.schema.errors import CheckpointError

_MAX_PICKLE = 8_000_000
_MAX_CONFIG = 5_000_000
_SPARE = 20  # entries of a PyTorch file that are not storages
_PT2 = "archive_format"


def open_zip(file: BinaryIO, name: str, limits: Limits) -> Archive:
    """Check the list of entries of a zip file.

    Args:
        file: A zip file, by its first bytes.
        name: What to call the file in the message.
        limits: The most it may hold.

    Returns:
        Its entries.

    Raises:
        CheckpointError: If the file is damaged or over the limits, or its entries are compressed
            in an unusual way, encrypted, overlap or share a name.
    """
    try:
        return Archive(
            file, max_entries=4 * limits.max_tensors + _SPARE, max_bytes=limits.max_bytes
        )
    except ArchiveError as error:
        raise CheckpointError(
            f"{name}: {error}; copy or download it again, or {HOW_TO_SAVE}"
        ) from error


def find_pickle(archive: Archive) -> str | None:
    """Find the `data.pkl` that makes a zip file a PyTorch file.

    Args:
        archive: Any zip file.

    Returns:
        The entry's name; None if this is not a file of `torch.save`.
    """
    found = [n for n in archive.entries if n.endswith("/data.pkl") and n.count("/") == 1]
    return found[0] if len(found) == 1 else None


def read_pickle(archive: Archive, entry: str, name: str) -> bytes:
    """Read the pickle that describes the tensors, once the entries around it are found sound.

    Args:
        archive: The zip file.
        entry: The pickle's name, as `find_pickle` found it.
        name: What to call the file in the message.

    Returns:
        The pickle, not looked into yet.

    Raises:
        CheckpointError: If the archive is compressed, from a big-endian machine, or of
            TorchScript, or the pickle is too large.
    """
    folder = entry.removesuffix("data.pkl")
    if any(n.startswith((folder + "code/", folder + "constants.pkl")) for n in archive.entries):
        raise CheckpointError(
            f"{name}: this is a TorchScript archive, which holds code, so it is not read. Open it "
            f"where you trust it and {HOW_TO_SAVE}"
        )
    if archive.packed():
        total, packed = (sum(e.file_size for e in archive.entries.values()),
                         sum(e.compress_size for e in archive.entries.values()))  # fmt: skip
        raise CheckpointError(
            f"{name}: the zip file is compressed ({total:,} bytes in {packed:,}), and torch.save "
            f"never compresses; {HOW_TO_SAVE}"
        )
    try:
        byteorder = folder + "byteorder"
        if byteorder in archive.entries and archive.read(byteorder, 100) != b"little":
            raise CheckpointError(
                f"{name}: was saved on a big-endian machine; save it as safetensors"
            )
        return archive.read(entry, _MAX_PICKLE)
    except ArchiveError as error:
        raise CheckpointError(f"{name}: {error}; {HOW_TO_SAVE}") from error


def is_pt2(archive: Archive) -> bool:
    """Return whether a zip file says that it is an exported program (`.pt2`)."""
    return any(n.count("/") == 1 and n.endswith(f"/{_PT2}") for n in archive.entries)


def check_pt2(archive: Archive, name: str) -> None:
    """Make sure that every weight and constant of an exported program is plain numbers.

    PyTorch's own reader unpickles whatever the lists in the archive mark as pickled, and thereby
    runs what is in it; such an archive is refused whole, as are compiled code and entries that the
    lists of weights name and the archive lacks.

    Args:
        archive: A `.pt2` archive, as `open_zip` opened it.
        name: What to call the file in the message.

    Raises:
        CheckpointError: If it is not such an archive, or holds anything pickled or compiled.
    """
    roots = {n.split("/")[0] for n in archive.entries}
    if not is_pt2(archive) or len(roots) != 1:
        raise CheckpointError(f"{name}: this is not an archive of torch.export.save")
    (root,) = roots
    if archive.packed():
        raise CheckpointError(
            f"{name}: the archive is compressed, and torch.export.save never compresses; export "
            "the model again"
        )
    for entry in archive.entries:
        _check_kind(entry.removeprefix(f"{root}/"), name)
    for kind in ("weights", "constants"):
        folder = f"{root}/data/{kind}/"
        for entry in archive.entries:
            if entry.startswith(folder) and entry.endswith("_config.json"):
                _check_payload(archive, folder, entry, name)


def _check_kind(entry: str, name: str) -> None:
    compiled = entry.startswith(("data/aotinductor/", "data/executorch/", "mtia/", "data/mtia/"))
    if compiled or entry.endswith((".so", ".dll", ".dylib", ".cubin", ".py")):
        raise CheckpointError(
            f"{name}: holds compiled code ({shown(entry)}), which is not run; export the model "
            "with torch.export.save alone"
        )
    inside = entry.startswith(("data/weights/", "data/constants/"))
    stem = entry.rsplit("/", 1)[-1]
    if inside and stem.startswith(("custom_obj", "opaque_obj", "script_obj")):
        raise CheckpointError(
            f"{name}: holds a pickled object among its constants ({shown(entry)}), which could "
            "run code, so it is not read; make the constant a buffer of the model"
        )
    if inside and stem.endswith((".pt", ".pkl")):
        raise CheckpointError(
            f"{name}: its weights are pickled ({shown(entry)}), as older versions of PyTorch did; "
            "export the model again with PyTorch 2.9 or newer"
        )


def _check_payload(archive: Archive, folder: str, entry: str, name: str) -> None:
    try:
        text = archive.read(entry, _MAX_CONFIG)
        listed = json.loads(text, object_pairs_hook=unique_keys)["config"].items()
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{name}: the list {shown(entry)} is damaged ({str(error)[:100]}); export it again"
        ) from error
    pickled, missing = [], []
    for key, payload in listed:
        match payload:
            case {"path_name": str(path), "use_pickle": False, "tensor_meta": dict()}:
                if folder + path not in archive.entries:
                    missing.append(shown(key))
            case _:
                pickled.append(shown(key))
    if pickled:
        raise CheckpointError(
            f"{name}: {first_few(pickled)} in {shown(entry)} are pickled, not plain numbers; that "
            "could run code, so the archive is not read. Make them dense tensors, and export again"
        )
    if missing:
        raise CheckpointError(
            f"{name}: {first_few(missing)} of {shown(entry)} are not in the archive; export it "
            "again"
        )
