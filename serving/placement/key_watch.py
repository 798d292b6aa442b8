"""From the configuration to the key ring, and the key file watched for changes."""

from __future__ import annotations

import asyncio
import logging

from serving.access import KeyRing
from serving.config import AccessSettings
from serving.tenancy.keys import KeyFile, KeyFileError, StoredKey

log = logging.getLogger("wattgate")


class KeyWatch:
    """Loads the key file into the ring when it has changed. A file that cannot be read changes nothing."""

    def __init__(self, ring: KeyRing, file: KeyFile | None) -> None:
        self._ring = ring
        self._file = file
        self._seen: tuple[int, int, int] | None = None

    def load(self) -> None:
        """Raises ``KeyFileError``: a gateway does not start with keys that it cannot read."""
        if self._file is not None:
            self._seen = self._mark()
            self._ring.load(self._file.read())

    async def refresh(self) -> None:
        if self._file is None:
            return
        try:
            stored = await asyncio.to_thread(self._changed)
        except KeyFileError as error:
            log.error("the keys stay as they were: %s", error)
            return
        if stored is not None:
            self._ring.load(stored)

    def _changed(self) -> tuple[StoredKey, ...] | None:
        mark = self._mark()
        if mark == self._seen:
            return None
        self._seen = mark
        if mark is None:
            raise KeyFileError(f"{self._file.path if self._file else ''} is gone")
        assert self._file is not None
        return self._file.read()

    def _mark(self) -> tuple[int, int, int] | None:
        assert self._file is not None
        try:
            found = self._file.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def build_keys(access: AccessSettings) -> tuple[KeyRing, KeyWatch]:
    """The ring with everything configured in it.

    Raises:
        KeyFileError: the key file is there and cannot be read.
    """
    ring = KeyRing(
        {tenant: key.get_secret_value() for tenant, key in access.api_keys.items()},
        closed=access.key_file is not None,
        admin_key=None if access.admin_key is None else access.admin_key.get_secret_value(),
        tenants=access.tenants,
        default=access.default_tenant,
    )
    watch = KeyWatch(ring, None if access.key_file is None else KeyFile(access.key_file))
    watch.load()
    return ring, watch
