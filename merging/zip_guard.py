"""What the zip file of a PyTorch checkpoint may hold, found from its list of entries.

`torch.save` writes its entries side by side and never compresses them; a list that says otherwise
belongs to a bomb, to a damaged file, or to something else. The list itself is bounded before it
is parsed, and the weights are not touched.
"""

import struct
import zipfile
from collections.abc import Sequence
from typing import BinaryIO

from merging.checkpoint_guards import HOW_TO_SAVE, Limits
from merging.errors import CheckpointError

_MAX_PICKLE = 8_000_000


def read_pickle(file: BinaryIO, size: int, name: str, limits: Limits) -> bytes:
    """Read the pickle that describes the tensors, once the list of entries is found sound.

    Args:
        file: A zip file, by its first bytes.
        size: Of the file, in bytes.
        name: What to call the file in the message.
        limits: The most it may hold.

    Returns:
        Its `data.pkl`, not looked into yet.

    Raises:
        CheckpointError: If the file is damaged, compressed, over the limits, from a big-endian
            machine, a TorchScript archive, or not from `torch.save` at all.
    """
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
            f"{HOW_TO_SAVE}"
        )


def _check_entries(
    entries: Sequence[zipfile.ZipInfo], size: int, name: str, limits: Limits
) -> None:
    total = sum(entry.file_size for entry in entries)
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise CheckpointError(
            f"{name}: the zip file is compressed ({total:,} bytes in {size:,}), and torch.save "
            f"never compresses; {HOW_TO_SAVE}"
        )
    if total > limits.max_bytes:
        raise CheckpointError(
            f"{name}: the zip file holds {total:,} bytes, more than the limit of "
            f"{limits.max_bytes:,}; save the weights alone"
        )
    end = 0
    for entry in sorted(entries, key=lambda e: e.header_offset):
        if entry.header_offset < end:
            raise CheckpointError(f"{name}: entries of the zip file overlap; {HOW_TO_SAVE}")
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
            f"where you trust it and {HOW_TO_SAVE}"
        )
    pickles = [entry for entry in names if entry.endswith("/data.pkl") and entry.count("/") == 1]
    if len(pickles) != 1:
        raise CheckpointError(
            f"{name}: this zip file was not written by torch.save (no data.pkl); {HOW_TO_SAVE}"
        )
    pickled = archive.getinfo(pickles[0])
    if pickled.file_size > _MAX_PICKLE:
        raise CheckpointError(
            f"{name}: the description of its tensors has {pickled.file_size:,} bytes, more "
            f"than the limit of {_MAX_PICKLE:,}; {HOW_TO_SAVE}"
        )
    return pickled
