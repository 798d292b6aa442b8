"""API keys at rest: a file of digests. The keys themselves are shown once, when they are made.

A key is 256 random bits, so a plain SHA-256 of it cannot be searched; slow password hashes are for secrets that
people choose (NIST SP 800-63B-4, section 3.1.2: look-up secrets of at least 112 bits take an approved hash).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

_VERSION = 1
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class KeyFileError(Exception):
    """One line: what is wrong with the file or the wish, and the mend."""


@dataclass(frozen=True, slots=True)
class StoredKey:
    """One key as the file keeps it; nothing in it opens anything."""

    id: str
    tenant: str
    digest: str
    """SHA-256 of the key, hex."""
    created: str
    """UTC, ISO 8601; so are the next two."""
    expires: str | None = None
    revoked: str | None = None

    def valid(self, now: datetime) -> bool:
        return self.revoked is None and (self.expires is None or datetime.fromisoformat(self.expires) > now)


def digest_of(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


class KeyFile:
    """The keys of all tenants. Every change is written whole and put in place at once; readers never see half."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> tuple[StoredKey, ...]:
        """Raises ``KeyFileError``; a file that does not exist has no keys."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ()
        except (OSError, UnicodeDecodeError) as error:
            raise KeyFileError(f"{self.path}: cannot be read ({getattr(error, 'strerror', 'not UTF-8')})") from None
        try:
            raw = json.loads(text)
            if raw["version"] != _VERSION:
                raise KeyFileError(f"{self.path}: version {raw['version']} is not known here, expected {_VERSION}")
            keys = tuple(_stored(entry) for entry in raw["keys"])
        except (ValueError, KeyError, TypeError):
            raise KeyFileError(f"{self.path}: damaged; restore it, or start a new file and issue new keys") from None
        return keys

    def create(self, tenant: str, now: datetime, lifetime: timedelta | None = None) -> tuple[StoredKey, str]:
        """A new key and its text, which is not kept anywhere."""
        if not _TENANT.fullmatch(tenant):
            raise KeyFileError(f"tenant {tenant!r}: expected 1 to 64 letters, digits, dots, dashes or underscores")
        with self._changing() as keys:
            stored, key = _new(tenant, now, lifetime)
            keys.append(stored)
        return stored, key

    def rotate(
        self, key_id: str, now: datetime, overlap: timedelta, lifetime: timedelta | None = None
    ) -> tuple[StoredKey, str]:
        """A successor; the old key stays valid for ``overlap``, or until its own expiry where that is sooner."""
        with self._changing() as keys:
            at = _position(keys, key_id)
            if not keys[at].valid(now):
                raise KeyFileError(f"key {key_id} is revoked or expired: make a new one with `keys create`")
            stored, key = _new(keys[at].tenant, now, lifetime)
            ends = (now + overlap).isoformat(timespec="seconds")
            old = keys[at].expires
            keys[at] = replace(keys[at], expires=ends if old is None else min(old, ends, key=datetime.fromisoformat))
            keys.append(stored)
        return stored, key

    def revoke(self, key_id: str, now: datetime) -> StoredKey:
        with self._changing() as keys:
            at = _position(keys, key_id)
            if keys[at].revoked is None:
                keys[at] = replace(keys[at], revoked=now.isoformat(timespec="seconds"))
            return keys[at]

    @contextlib.contextmanager
    def _changing(self) -> Iterator[list[StoredKey]]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(f"{self.path}.lock", "a", encoding="utf-8") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                keys = list(self.read())
                yield keys
                self._write(keys)
        except OSError as error:
            raise KeyFileError(f"{self.path}: cannot be written ({error.strerror})") from None

    def _write(self, keys: list[StoredKey]) -> None:
        text = json.dumps({"version": _VERSION, "keys": [asdict(key) for key in keys]}, indent=2) + "\n"
        # mkstemp makes it readable by its owner alone
        descriptor, name = tempfile.mkstemp(prefix=f".{self.path.name}-", dir=self.path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise


def _stored(entry: dict[str, Any]) -> StoredKey:
    key = StoredKey(**entry)
    for value in (key.id, key.tenant, key.digest, key.created):
        if not isinstance(value, str):
            raise TypeError
    if len(bytes.fromhex(key.digest)) != hashlib.sha256().digest_size:
        raise ValueError
    for moment in (key.created, key.expires, key.revoked):
        if moment is not None and datetime.fromisoformat(moment).tzinfo is None:
            raise ValueError
    return key


def _new(tenant: str, now: datetime, lifetime: timedelta | None) -> tuple[StoredKey, str]:
    key_id = secrets.token_hex(4)
    key = f"wg-{key_id}-{secrets.token_urlsafe(32)}"
    created = now.astimezone(UTC)
    expires = None if lifetime is None else (created + lifetime).isoformat(timespec="seconds")
    return StoredKey(key_id, tenant, digest_of(key).hex(), created.isoformat(timespec="seconds"), expires), key


def _position(keys: list[StoredKey], key_id: str) -> int:
    for at, key in enumerate(keys):
        if key.id == key_id:
            return at
    raise KeyFileError(f"no key {key_id}: `keys list` shows the ids")
