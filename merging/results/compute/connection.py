"""A conductor's cluster and its client: started when they are needed, let go when they are lost."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from merging.results.compute.cluster import OtherCluster, OwnCluster
from merging.results.compute.store import Store
from merging.schema.errors import ComputeError

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)


class Connection:
    """One cluster at a time; used by the conductor's thread alone.

    Args:
        store: Where workers keep what they find.
        address: As for `Service`.
        preload: As for `Service`.

    Attributes:
        cluster: What was started, or None.
        client: Dask's, once the cluster is up.
    """

    def __init__(self, store: Store, address: str | None, preload: str) -> None:
        self.cluster: OwnCluster | OtherCluster | None = None
        self.client: Client | None = None
        self._store = store
        self._address = address or os.environ.get("DASK_SCHEDULER_ADDRESS")
        self._preload = preload

    @property
    def coming_up(self) -> bool:
        """Whether a cluster was started that has no client yet."""
        return self.cluster is not None and self.client is None

    def start(self) -> None:
        """Start a cluster if there is none."""
        if self.cluster is None and self._address:
            self.cluster = OtherCluster(self._address)
        elif self.cluster is None:
            self.cluster = OwnCluster(self._store, self._preload)

    def tend(self) -> bool:
        """Connect to a cluster that came up.

        Returns:
            Whether there is a client now and was none before.

        Raises:
            ComputeError: If the cluster is gone; the message is for whoever waits for it.
        """
        if self.cluster is None:
            return False
        if not self.cluster.alive():
            log.warning("The compute process is gone")
            raise ComputeError(self.cluster.lost)
        if self.client is not None:
            return False
        try:
            self.client = self.cluster.connect()
        except (OSError, ValueError) as error:
            log.warning("No connection to the cluster: %s", error)
            raise ComputeError(self.cluster.lost) from error
        return self.client is not None

    def drop(self) -> None:
        """Let the cluster go, and end it if it is ours."""
        client, self.client = self.client, None
        cluster, self.cluster = self.cluster, None
        if client is not None:
            with suppress(Exception):  # it may be in any state, and nobody needs it any more
                client.close(timeout=1)
        if cluster is not None:
            cluster.end()
