"""From the configuration to the key ring, and the key file watched for changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from serving.access import KeyRing
from serving.config import AccessSettings
from serving.tenancy.keys import KeyFile, KeyFileError, StoredKey

log = logging.getLogger("wattgate")

_Mark = tuple[int, int, int]
"""Of a file: when it was changed, its size, its inode."""


class KeyWatch:
    """Loads the key file into the ring when it has changed. A file that cannot be read changes nothing."""

    def __init__(self, ring: KeyRing, file: KeyFile | None, on_fault: Callable[[], None]) -> None:
        self._ring = ring
        self._file = file
        self._on_fault = on_fault
        self._seen: _Mark | None = None
        """Of the content that is in the ring."""
        self._told: str | None = None
        """The fault that the log has been told; the same one is not told at every look."""

    def load(self) -> None:
        """Raises ``KeyFileError``: a gateway does not start with keys that it cannot read."""
        if self._file is not None:
            mark = self._mark()
            self._ring.load(self._file.read())
            self._seen = mark

    async def refresh(self) -> None:
        if self._file is None:
            return
        try:
            changed = await asyncio.to_thread(self._changed)
        except KeyFileError as error:
            self._on_fault()
            if str(error) != self._told:
                log.error("the keys stay as they were: %s", error)
            self._told = str(error)
            return
        self._told = None
        if changed is not None:
            self._seen, stored = changed
            self._ring.load(stored)

    def _changed(self) -> tuple[_Mark, tuple[StoredKey, ...]] | None:
        """The mark is taken first: what is written between the two is read at the next look."""
        mark = self._mark()
        if mark == self._seen:
            return None
        assert self._file is not None
        if mark is None:
            raise KeyFileError(f"{self._file.path} is gone")
        return mark, self._file.read()

    def _mark(self) -> _Mark | None:
        assert self._file is not None
        try:
            found = self._file.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def build_keys(access: AccessSettings, on_fault: Callable[[], None] = lambda: None) -> tuple[KeyRing, KeyWatch]:
    """The ring with everything configured in it. ``on_fault`` is called at each look that could not read the file.

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
    watch = KeyWatch(ring, None if access.key_file is None else KeyFile(access.key_file), on_fault)
    watch.load()
    return ring, watch
