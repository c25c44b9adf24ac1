"""Uploads in the store: each is hashed and written once, and forgotten when its reader leaves."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable
from typing import Protocol

from merging.results.compute.store import Store
from merging.visualization.wording import shortened

_NAME = 120  # characters


class Upload(Protocol):
    """What a file uploader returns."""

    file_id: str
    name: str

    def getvalue(self) -> bytes:
        """Return the whole file."""


class KeptUploads:
    """Which uploads of this process are in the store, by the identity that Streamlit gives them.

    Args:
        store: The store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._digests: dict[str, str] = {}
        self._lock = threading.Lock()

    def keep(self, file: Upload) -> str:
        """Keep an upload for a worker to read.

        Args:
            file: The upload.

        Returns:
            The SHA-256 of its bytes, under which it is in the store.
        """
        known = self._digests.get(file.file_id)
        if known is not None and self._store.files.path(known) is not None:
            return known
        data = file.getvalue()
        digest = hashlib.sha256(data).hexdigest()
        with self._lock:  # not while uploads are being forgotten
            self._store.files.put(digest, data, ".upload")
            self._digests[file.file_id] = digest
        return digest

    def forget_all_but(self, files: Iterable[str]) -> None:
        """Drop the uploads of which no file is left.

        Args:
            files: Identities of the files that are still there.
        """
        with self._lock:
            left = set(files)
            gone = [file for file in self._digests if file not in left]
            dropped = {self._digests.pop(file) for file in gone}
            for digest in dropped.difference(self._digests.values()):
                self._store.files.drop_upload(digest)


def called(file: Upload) -> str:
    """Return what an upload is called: its name with both ends, of a length that can be shown."""
    return shortened(str(file.name), _NAME)
