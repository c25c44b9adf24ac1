"""Files that a person uploaded, in a store."""

from __future__ import annotations

from pathlib import Path

from merging.results.compute.blobs import Blobs, checked
from merging.results.compute.index import Index
from merging.schema.errors import StoreError

SUFFIXES = (".safetensors", ".npz", ".json", ".upload")  # .upload: not read yet, any format


class Files:
    """Uploaded files, and what was read of them.

    Args:
        index: Of the store.
        blobs: Where files are kept.
    """

    def __init__(self, index: Index, blobs: Blobs) -> None:
        self._index = index
        self._blobs = blobs

    def put(self, key: str, source: bytes | Path, suffix: str, pinned: bool = False) -> Path:
        """Keep an uploaded file.

        Args:
            key: 64 hexadecimal digits; the name it came with is never used.
            source: Its bytes, or the file to copy them from.
            suffix: One of `SUFFIXES`.
            pinned: Whether it stays when room is made.

        Returns:
            Where it is now.

        Raises:
            StoreError: If it cannot be kept, the key is none, or the suffix is another.
        """
        if suffix not in SUFFIXES:
            choices = ", ".join(SUFFIXES)
            raise StoreError(f"files ending in {suffix!r} are not kept; expected {choices}")
        return self._blobs.keep("file", key, suffix, source, pinned=pinned)

    def path(self, key: str) -> Path | None:
        """Return where an uploaded file is, or None if it is not there (whole)."""
        with self._index.explained(f"find file {checked(key)[:8]}"), self._index.connection() as db:
            row = self._blobs.row(db, "file", key)
            if row is None:
                return None
            try:
                whole = row.path.stat().st_size == row.size
            except FileNotFoundError:
                whole = False
        return row.path if whole else None

    def drop_upload(self, key: str) -> None:
        """Forget an upload whose bytes nobody needs any more; what was read of it stays."""
        path = self._blobs.path("file", key, ".upload")
        place = path.relative_to(self._index.folder).as_posix()
        with self._index.explained(f"drop {path.name}"), self._index.transaction() as db:
            db.execute("delete from blobs where kind = 'file' and path = ?", [place])
            path.unlink(missing_ok=True)
